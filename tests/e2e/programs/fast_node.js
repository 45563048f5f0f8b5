// SPDX-License-Identifier: Apache-2.0
// fast_node.js serve PORT: HTTP; POST sends the body back, POST /reset resets the connection.
// fast_node.js drive HOST PORT: keep-alive requests of random sizes for three seconds, each answer compared;
// then one that is reset.
'use strict';
const http = require('http');
const { createHash } = require('crypto');

const REQUESTS = 150;
const LARGEST = 200 << 10;

// Bytes that are no two places alike, the same in every run.
function body(number) {
  const size = 1 + (createHash('sha256').update(`size ${number}`).digest().readUInt32LE() % LARGEST);
  const blocks = [];
  for (let at = 0; at < size; at += 32) blocks.push(createHash('sha256').update(`${number} ${at}`).digest());
  return Buffer.concat(blocks, size);
}

function serve(port) {
  const server = http.createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      if (request.url === '/reset') request.socket.resetAndDestroy();
      else response.end(Buffer.concat(parts));
    });
  });
  server.listen(port, '::', () => console.log('ready'));
}

function ask(agent, host, port, path, sent) {
  return new Promise((resolve, reject) => {
    const request = http.request({ agent, host, port, method: 'POST', path }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => resolve(Buffer.concat(parts)));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(sent);
  });
}

async function drive(host, port) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const all = createHash('sha256');
  for (let number = 0; number < REQUESTS; number++) {
    const sent = body(number);
    const got = await ask(agent, host, port, '/echo', sent);
    if (!got.equals(sent)) throw new Error(`request ${number}: ${got.length} bytes instead of ${sent.length}`);
    all.update(got);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const ended = await ask(agent, host, port, '/reset', body(0)).catch((error) => error.code);
  agent.destroy();
  console.log(REQUESTS, 'requests', all.digest('hex'), 'reset:', ended);
}

if (process.argv[2] === 'serve') {
  serve(Number(process.argv[3]));
} else {
  drive(process.argv[3], Number(process.argv[4]));
}
