// SPDX-License-Identifier: Apache-2.0
// node_http.js V4 V6: http with a keep-alive agent, and net with a half-close.
// node_http.js faults HOST: both against the servers of probe_server.py that fail.
'use strict';
const crypto = require('crypto');
const http = require('http');
const net = require('net');

const sha256 = (data) => crypto.createHash('sha256').update(data).digest('hex');

function request(agent, host, method, path, body) {
  return new Promise((resolve, reject) => {
    const sent = http.request({agent, host, port: 8080, method, path}, (answer) => {
      const pieces = [];
      answer.on('data', (piece) => pieces.push(piece));
      answer.on('end', () => resolve(`${answer.statusCode} ${sha256(Buffer.concat(pieces))}`));
      answer.on('error', reject);
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

function echo(host, data) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({host, port: 7000, allowHalfOpen: true}, () => socket.end(data));
    const pieces = [];
    socket.on('data', (piece) => pieces.push(piece));
    socket.on('end', () => resolve(`${socket.remoteAddress} ${socket.remotePort} ${sha256(Buffer.concat(pieces))}`));
    socket.on('error', reject);
  });
}

async function main() {
  const body = Buffer.alloc(5000000, 'sidetrack ');
  for (const host of process.argv.slice(2, 4)) {
    const agent = new http.Agent({keepAlive: true, maxSockets: 2});
    for (let i = 0; i < 10; ++i) console.log('get', await request(agent, host, 'GET', '/data'));
    const many = [];
    for (let i = 0; i < 10; ++i) many.push(request(agent, host, 'GET', '/data'));
    for (const line of await Promise.all(many)) console.log('get', line);
    console.log('put', (await request(agent, host, 'PUT', '/upload/node', body)).slice(0, 2));
    console.log('got', await request(agent, host, 'GET', '/upload/node'), sha256(body));
    console.log('missing', (await request(agent, host, 'GET', '/nothing')).slice(0, 3));
    agent.destroy();
    console.log('echo', await echo(host, body));
  }
}

// How a request ended, and after how many bytes. The request or the answer may be the first to say so: in words of its own.
function httpEnd(host, port) {
  return new Promise((resolve) => {
    let length = 0;
    const end = (text) => resolve(`http ${length} ${text}`);
    const sent = http.get({agent: false, host, port}, (answer) => {
      answer.on('data', (piece) => { length += piece.length; });
      answer.on('end', () => end('end'));
      answer.on('error', (error) => end(error.code));
    });
    sent.on('error', (error) => end(error.code));
  });
}

// To libuv, a reset that comes before it has read the bytes can be an end: so 7201 waits to be told that they have come, and 7202 sends
// none.
function netEnd(host, port) {
  return new Promise((resolve) => {
    let length = 0;
    const socket = net.connect({host, port});
    socket.once(port === 7201 ? 'data' : 'connect', () => socket.write('x'));
    socket.on('data', (piece) => { length += piece.length; });
    socket.on('end', () => resolve(`net ${length} end`));
    socket.on('error', (error) => resolve(`net ${length} ${error.syscall} ${error.code}`));
  });
}

async function faults(host) {
  for (const [fault, httpPort, netPort] of [['reset', 7211, 7201], ['cut', 7212, 7202], ['refused', 9, 9]]) {
    console.log(fault, await httpEnd(host, httpPort));
    console.log(fault, await netEnd(host, netPort));
  }
}

(process.argv[2] === 'faults' ? faults(process.argv[3]) : main()).catch((error) => {
  console.error(error);
  process.exit(1);
});
