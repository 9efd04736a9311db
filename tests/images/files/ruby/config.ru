# The application of `ruby-puma`.
run lambda { |env|
  case env['PATH_INFO']
  when '/'
    [200, { 'content-type' => 'text/plain' }, ["hello from worker #{Process.pid}\n"]]
  when '/threads'
    answers = 4.times.map { |number| Thread.new { sleep 0.01; number } }.sum(&:value)
    [200, { 'content-type' => 'text/plain' }, ["sum #{answers}\n"]]
  when '/child'
    text = IO.popen(%w[cat], 'r+') { |cat| cat.write 'through cat'; cat.close_write; cat.read }
    [200, { 'content-type' => 'text/plain' }, ["#{text}, #{$?.exitstatus}\n"]]
  when '/crash'
    Process.kill(:KILL, Process.pid)
  else
    [404, {}, []]
  end
}
