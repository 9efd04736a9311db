# syntax=docker/dockerfile:1.7-labs
# check=skip=all
ARG REGISTRY
FROM ${REGISTRY}/busybox
ARG WHO=me
COPY --chown=3:4 <<-"first" <<-second.txt <<'third' data/one.txt /several/
	tab $WHO
		twice
	first
	tab $WHO \$WHO "quoted" \\
	second.txt
keeps	$WHO and 'quotes' \n
third
RUN <<ONE cat > /one && cat <<-TWO > /two
	one ${WHO}
ONE
	two $WHO
	TWO
