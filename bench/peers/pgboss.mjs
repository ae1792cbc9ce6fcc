// SPDX-License-Identifier: MIT
// pg-boss doing one-step work: a job is sent, worked on and completed. It has no steps to record, so it is
// a job queue beside our one-step workflow; start to finish ends when the handler runs, for there is no result to await.
// It finds jobs by polling, every half second at best, so with few in flight that is what is seen; therefore also `drain`:
// twenty thousand jobs sent beforehand in bulk, and how fast they are worked off.
//   node pgboss.mjs URL IN_FLIGHT SECONDS
import { PgBoss } from 'pg-boss';

const [url, inFlight, seconds] = process.argv.slice(2);
const boss = new PgBoss({ connectionString: url, max: 10 });
boss.on('error', (error) => { console.error(error); process.exit(1); });
await boss.start();
await boss.createQueue('bench');

const waiting = new Map();
const batch = Math.max(1, Number(inFlight));
await boss.work('bench', { batchSize: batch, pollingIntervalSeconds: 0.5 }, async (jobs) => {
  for (const job of jobs) waiting.get(job.id)?.();
});

const round = async (ms) => {
  const took = [], end = performance.now() + ms;
  await Promise.all(Array.from({ length: Number(inFlight) }, async () => {
    while (performance.now() < end) {
      const began = performance.now(), id = crypto.randomUUID();
      const done = new Promise((resolve) => waiting.set(id, resolve));
      await boss.send('bench', { n: 1 }, { id });
      await done;
      waiting.delete(id);
      took.push((performance.now() - began) * 1000);
    }
  }));
  return took;
};

await round(seconds * 250);
const began = performance.now();
const took = (await round(seconds * 1000)).sort((a, b) => a - b);
const spent = (performance.now() - began) / 1000;

const many = 20000, jobs = Array.from({ length: many }, () => ({ data: { n: 1 } }));
await boss.createQueue('drain');
for (let i = 0; i < many; i += 1000) await boss.insert('drain', jobs.slice(i, i + 1000));
let worked = 0, finished;
const all = new Promise((resolve) => { finished = resolve; });
const from = performance.now();
for (let i = 0; i < 4; i++) {
  await boss.work('drain', { batchSize: 500, pollingIntervalSeconds: 0.5 }, async (batch) => {
    worked += batch.length;
    if (worked >= many) finished();
  });
}
await all;
const drained = many / ((performance.now() - from) / 1000);
const quantile = (q) => Math.round(took[Math.floor(q * (took.length - 1))]);
console.log(JSON.stringify({
  workflows: took.length, seconds: spent, workflows_per_s: took.length / spent,
  steps_per_s: took.length / spent, p50_us: quantile(0.5), p99_us: quantile(0.99),
  drain_per_s: drained,
}));
process.exit(0);
