# escape=`
# A comment

arg REGISTRY
from ${REGISTRY}/busybox

# Another
run echo one `
  # in between
  > /one `

  && echo "two # not a comment" > /two
   label   spaced=yes
