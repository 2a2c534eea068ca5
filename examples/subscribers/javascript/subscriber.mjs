// Keeps a local copy of who owns which customer, right across restarts.
//
//     npm ci
//     node subscriber.mjs 127.0.0.1:9092 copy.json --caller crm
//
// The copy is a file of JSON: what a batch of records brings and up to where they were read are
// written to a new file, which then takes the place of the old one, at once and whole. So whatever
// ends this program, it goes on where the copy stands. (With many customers, use a database, and
// write both in one transaction.)
import { randomUUID } from 'node:crypto';
import { open, readFile, rename } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { Kafka, logLevel } from 'kafkajs';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    topic: { type: 'string', default: 'guishu.ownership.current.v1' },
    caller: { type: 'string' }, // as whom your own requests are recorded
    'until-end': { type: 'boolean', default: false }, // do not wait for more
  },
});
const [bootstrap, file] = positionals;
if (file === undefined) {
  console.error('usage: node subscriber.mjs BOOTSTRAP FILE [--topic T] [--caller C] [--until-end]');
  process.exit(2);
}

const copy = await load();

async function load() {
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return { partitions: {} }; // of each: topicId, next offset, and ownership by customer
  }
}

async function save() {
  const draft = await open(`${file}.draft`, 'w');
  try {
    await draft.writeFile(JSON.stringify(copy));
    await draft.sync();
  } finally {
    await draft.close();
  }
  await rename(`${file}.draft`, file);
}

// Takes in one record; false: the topic was made anew, read it from its beginning. What is held by
// then may be of a past that was given up.
function keep(partition, { key, value, headers, offset }) {
  const topicId = headers.topic_id.toString();
  const held = (copy.partitions[partition] ??= { topicId, next: '0', ownership: {} });
  if (held.topicId !== topicId) {
    copy.partitions[partition] = { topicId, next: '0', ownership: {} };
    return false;
  }
  const customer = key.toString();
  if (value === null) {
    delete held.ownership[customer]; // the customer was erased
  } else {
    const told = JSON.parse(value.toString());
    // A record may come again, and so may one that is older than what is held.
    if (!(held.ownership[customer]?.version >= told.version)) {
      held.ownership[customer] = told;
      show(customer, told);
    }
  }
  held.next = String(BigInt(offset) + 1n);
  return true;
}

// Do here what your system does when an owner changes; its own doing it knows already.
function show(customer, { owner, cause }) {
  const echo = options.caller !== undefined && cause.caller === options.caller;
  const by = echo ? `our own request ${cause.request_id}` : cause.caller;
  console.log(`${customer}: ${owner?.id ?? 'free'} (by ${by})`);
}

const kafka = new Kafka({ brokers: bootstrap.split(','), logLevel: logLevel.WARN });
const { topic } = options;
const ends = await endsNow();

async function endsNow() {
  const admin = kafka.admin();
  await admin.connect();
  try {
    const offsets = await admin.fetchTopicOffsets(topic);
    return offsets.filter(({ low, high }) => low !== high);
  } finally {
    await admin.disconnect();
  }
}

function isAtTheEnd() {
  return ends.every(({ partition, high }) => {
    const next = copy.partitions[partition]?.next;
    return next !== undefined && BigInt(next) >= BigInt(high);
  });
}

// Every copy reads all partitions: it is alone in its group, and commits nothing to Kafka. With the
// group of a start before, it would wait for that to be given up.
const consumer = kafka.consumer({ groupId: `guishu-copy-${randomUUID()}` });
let stop;
const stopped = new Promise((resolve) => {
  stop = resolve;
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stop);
// What kafkajs does not try again ends this program, for somebody to start it anew.
consumer.on(consumer.events.CRASH, ({ payload }) => {
  if (!payload.restart) process.exitCode = 1;
  if (!payload.restart) stop();
});

await consumer.connect();
await consumer.subscribe({ topic, fromBeginning: true });
await consumer.run({
  autoCommit: false,
  eachBatchAutoResolve: false,
  eachBatch: async ({ batch: { partition, messages }, resolveOffset, isStale }) => {
    if (isStale()) return; // it was fetched before the place to begin at was known
    const goesOn = messages.every((message) => keep(partition, message));
    await save();
    if (goesOn) resolveOffset(messages.at(-1).offset);
    else consumer.seek({ topic, partition, offset: '0' });
    if (options['until-end'] && isAtTheEnd()) stop();
  },
});
for (const [partition, { next }] of Object.entries(copy.partitions)) {
  consumer.seek({ topic, partition: Number(partition), offset: next });
}
if (options['until-end'] && isAtTheEnd()) stop();
await stopped;
await consumer.disconnect();
