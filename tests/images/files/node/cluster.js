// A primary that hands connections to three workers and replaces those that end.
const cluster = require('node:cluster');
const http = require('node:http');

if (cluster.isPrimary) {
  for (let count = 0; count < 3; count++) cluster.fork();
  let stopping = false;
  cluster.on('exit', (worker, code, signal) => {
    if (stopping) return;
    console.log(`worker ended with ${signal ?? code}`);
    cluster.fork();
  });
  process.on('SIGTERM', () => {
    stopping = true;
    cluster.disconnect(() => {
      console.log('all workers ended');
      process.exit(0);
    });
  });
} else {
  const server = http.createServer((request, response) => {
    if (request.url === '/crash') process.kill(process.pid, 'SIGKILL');
    response.end(`hello from worker ${process.pid}\n`);
  });
  server.listen(3000, () => console.log(`worker ${process.pid} listens`));
}
