// SPDX-License-Identifier: MIT
// A hub of the original's shape: express for HTTP, ws for agents, everything in RAM, nothing on the disk.
// It does what the original's did for a task and a message (counters, current tasks, history of 1,000, metrics), and
// beside that lets a caller wait for the result, so that both hubs can be asked the same.
//   NODE_PATH-less: the packages are found from the folder given.   node hub.mjs FOLDER HTTP_PORT WS_PORT
import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { randomBytes, randomUUID } from 'node:crypto';

const [folder, httpPort, wsPort] = process.argv.slice(2);
const require = createRequire(`${folder}/node_modules/`);
const express = require('express');
const { WebSocketServer } = require('ws');

const agents = new Map(), tokens = new Map(), sockets = new Map(), queues = new Map(), waiting = new Map(), history = new Map();
const TYPES = new Set(['task', 'response', 'health', 'log', 'status', 'error']);

function route(message) {
  if (!message.from || !message.to || !TYPES.has(message.type)) return;
  message.id ??= randomUUID();
  message.timestamp ??= Date.now();
  history.set(message.id, message);
  if (history.size > 1000) history.delete(history.keys().next().value);
  const socket = sockets.get(message.to);
  if (socket) {
    agents.get(message.to).stats.messagesReceived++;
    socket.send(JSON.stringify(message));
  } else if (agents.has(message.to)) {
    queues.get(message.to).push(message);
  }
}

function receive(id, data) {
  const message = JSON.parse(data), agent = agents.get(id);
  agent.stats.messagesSent++;
  if (message.type === 'health') {
    Object.assign(agent.health, message.payload);
    agent.lastSeen = agent.lastHealthCheck = Date.now();
    return;
  }
  if (message.type === 'response' && message.payload.taskId) {
    const { taskId, success } = message.payload;
    agent.currentTasks = agent.currentTasks.filter((task) => task.id !== taskId);
    if (success === false) agent.stats.tasksFailed++; else agent.stats.tasksCompleted++;
    waiting.get(taskId)?.(message.payload);
  }
  route(message);
}

const app = express();
app.use(express.json());
app.post('/agents/register', (req, res) => {
  const { agentId, metadata = {} } = req.body, token = randomBytes(32).toString('hex');
  agents.set(agentId, { id: agentId, status: 'offline', registeredAt: Date.now(), lastSeen: null, lastHealthCheck: null, metadata,
    stats: { tasksReceived: 0, tasksCompleted: 0, tasksFailed: 0, messagesReceived: 0, messagesSent: 0 }, health: {}, currentTasks: [] });
  tokens.set(token, agentId);
  queues.set(agentId, []);
  res.json({ agent: agents.get(agentId), token, wsUrl: `ws://localhost:${wsPort}/agent/${agentId}/${token}` });
});
app.get('/health', (req, res) => res.json({ status: 'healthy', uptime: process.uptime(), timestamp: Date.now(),
  agents: { total: agents.size, online: sockets.size } }));
app.post('/agents/:id/task', (req, res) => {
  const agent = agents.get(req.params.id);
  if (!agent) return res.status(404).json({ error: 'Agent not found' });
  const taskId = req.body.id || randomUUID();
  agent.currentTasks.push({ id: taskId, type: req.body.type, startedAt: Date.now(), payload: req.body });
  agent.stats.tasksReceived++;
  if (req.query.wait) {
    waiting.set(taskId, (response) => {
      waiting.delete(taskId);
      res.json({ taskId, status: 'sent', task: { id: taskId, status: 'completed', response } });
    });
  }
  route({ id: randomUUID(), from: 'host', to: agent.id, type: 'task', timestamp: Date.now(), payload: { taskId, ...req.body } });
  if (!req.query.wait) res.json({ taskId, status: 'sent' });
});
createServer(app).listen(Number(httpPort), '127.0.0.1');

const wss = new WebSocketServer({ noServer: true });
createServer().on('upgrade', (req, socket, head) => {
  const [, kind, id, token] = req.url.split('/');
  if (kind !== 'agent' || tokens.get(token) !== id) return socket.destroy();
  wss.handleUpgrade(req, socket, head, (ws) => {
    const agent = agents.get(id);
    agent.status = 'online';
    agent.lastSeen = Date.now();
    sockets.set(id, ws);
    for (const message of queues.get(id).splice(0)) ws.send(JSON.stringify(message));
    ws.send(JSON.stringify({ type: 'status', from: 'host', to: id, timestamp: Date.now(),
      payload: { status: 'connected', message: 'Welcome to VM Hub' } }));
    ws.on('message', (data) => receive(id, data));
    ws.on('error', () => {});
    ws.on('close', () => { agent.status = 'offline'; if (sockets.get(id) === ws) sockets.delete(id); });
  });
}).listen(Number(wsPort), '127.0.0.1');
