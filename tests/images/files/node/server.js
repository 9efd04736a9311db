// The application of `node`.
const { execFile } = require('node:child_process');
const { scrypt } = require('node:crypto');
const dns = require('node:dns');
const express = require('express');
const { Worker } = require('node:worker_threads');

const app = express();
app.use(express.json());
app.get('/', (request, response) => response.send('hello from express\n'));
app.post('/echo', (request, response) => response.json(request.body));
app.get('/file', (request, response) => response.sendFile('/app/server.js'));
// libuv's pool of threads.
app.get('/scrypt', (request, response) =>
  scrypt('password', 'salt', 32, (error, key) => response.send(key.toString('hex'))));
app.get('/lookup', (request, response) =>
  dns.lookup('localhost', (error, address) => response.send(error ? error.code : address)));
app.get('/child', (request, response) =>
  execFile('sh', ['-c', 'echo out; echo err >&2; exit 5'], (error, out, err) =>
    response.json({ status: error.code, out, err })));
app.get('/worker', (request, response) => {
  const worker = new Worker('require("worker_threads").parentPort.postMessage(6 * 7)', { eval: true });
  worker.once('message', (answer) => response.send(`answer ${answer}`));
});

const server = app.listen(3000, () => console.log('listening'));
process.on('SIGTERM', () => {
  console.log('stopping');
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
