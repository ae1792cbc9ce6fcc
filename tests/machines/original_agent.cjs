// SPDX-License-Identifier: MIT
// An agent written to the original's protocol and no more: Node, the ws library, one JSON message a frame. It knows task and
// status, answers response, sends health at once and every 30 s, reconnects after 1, 2, 4 … s, and knows nothing of what chela adds.
//   AGENT_ID=… AGENT_TOKEN=… HUB_URL=ws://… node original_agent.cjs FOLDER-OF-NODE_MODULES
const { exec } = require('node:child_process');
const { randomUUID } = require('node:crypto');
const { mkdirSync, readFileSync, writeFileSync } = require('node:fs');
const path = require('node:path');
const os = require('node:os');
const WebSocket = require(path.join(process.argv[2], 'node_modules', 'ws'));

const { AGENT_ID, AGENT_TOKEN, HUB_URL } = process.env;
let socket, attempts = 0, timer;

function send(type, payload, to = 'host') {
  const message = { id: randomUUID(), from: AGENT_ID, to, type, timestamp: Date.now(), payload };
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  else console.warn('[CLIENT] not connected, message dropped');
}

function health() {
  const total = Math.round(os.totalmem() / 1048576), free = Math.round(os.freemem() / 1048576);
  send('health', { cpu: 1, memory: { total, used: total - free, free, usagePercent: 50 }, disk: { total: 0, used: 0, free: 0, usagePercent: 0 },
    uptime: Math.floor(process.uptime()), systemUptime: Math.floor(os.uptime()), loadAverage: os.loadavg(), platform: os.platform(),
    arch: os.arch(), hostname: os.hostname(), timestamp: Date.now() });
}

function perform(task, done) {
  if (task.type === 'exec') {
    exec(task.command, { cwd: task.cwd, timeout: task.timeout || 1800000, maxBuffer: 10 * 1024 * 1024 }, (error, stdout, stderr) =>
      error ? done(error) : done(null, { stdout: stdout.trim(), stderr: stderr.trim(), exitCode: 0 }));
  } else if (task.type === 'file:write') {
    mkdirSync(path.dirname(task.filePath), { recursive: true });
    writeFileSync(task.filePath, task.content, task.encoding || 'utf8');
    done(null, { filePath: task.filePath, size: Buffer.byteLength(task.content) });
  } else if (task.type === 'file:read') {
    const content = readFileSync(task.filePath, task.encoding || 'utf8');
    done(null, { filePath: task.filePath, content, size: Buffer.byteLength(content) });
  } else {
    done(new Error(`Unknown task type: ${task.type}`));
  }
}

function work(message) {
  const started = Date.now(), { taskId } = message.payload;
  const done = (error, result) => send('response', error
    ? { taskId, success: false, error: error.message, stack: error.stack, duration: Date.now() - started, timestamp: Date.now() }
    : { taskId, success: true, result, duration: Date.now() - started, timestamp: Date.now() }, message.from || 'host');
  try {
    perform(message.payload, done);
  } catch (error) {
    done(error);
  }
}

function connect() {
  socket = new WebSocket(`${HUB_URL}/agent/${AGENT_ID}/${AGENT_TOKEN}`);
  socket.on('open', () => {
    attempts = 0;
    console.log('[CLIENT] connected');
    health();
    timer = setInterval(health, 30000);
  });
  socket.on('message', (data) => {
    const message = JSON.parse(data.toString());
    if (message.type === 'task') work(message);
    else if (message.type === 'status') console.log('[CLIENT] status', JSON.stringify(message.payload));
    else console.log('[CLIENT] unknown', message.type);
  });
  socket.on('error', (error) => console.error('[CLIENT] error', error.message));
  socket.on('close', (code) => {
    clearInterval(timer);
    console.log('[CLIENT] closed', code);
    if (++attempts > 10) process.exit(1);
    setTimeout(connect, Math.min(1000 * 2 ** (attempts - 1), 60000));
  });
}

process.on('SIGTERM', () => { socket.close(1000, 'Agent shutting down'); process.exit(0); });
connect();
