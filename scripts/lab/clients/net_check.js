// Connections to the echo server on the unix socket argv[2], by node:net, for Node and what runs its programs: each expects exactly its own bytes back.
const net = require('net');
const CONNECTIONS = 6, ROUNDS = 150;

function message(who, number) {
  const size = number % 5 === 4 ? 1 + (who * 7919 + number * 104729) % 100000 : 1 + (who * 31 + number * 17) % 300;
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; ++at) bytes[at] = (at * 7 + (at >> 8) + who * 13 + number) & 255;
  return bytes;
}

function converse(who) {
  return new Promise((resolve, reject) => {
    const connection = net.connect(process.argv[2]);
    let number = 0, sent = message(who, 0), received = 0;
    connection.on('connect', () => connection.write(sent));
    connection.on('error', reject);
    connection.on('data', (bytes) => {
      if (!bytes.equals(sent.subarray(received, received + bytes.length)))
        return reject(new Error(`connection ${who}: answer ${number} differs in the ${bytes.length} bytes at ${received} of ${sent.length}`));
      received += bytes.length;
      if (received < sent.length) return;
      received = 0;
      if (++number === ROUNDS) return connection.end();
      sent = message(who, number);
      connection.write(sent);
    });
    connection.on('end', () => (number === ROUNDS ? resolve() : reject(new Error(`connection ${who}: the end at answer ${number}`))));
  });
}

Promise.all(Array.from({length: CONNECTIONS}, (_, who) => converse(who))).then(() => process.exit(0), (problem) => {
  console.error(problem);
  process.exit(1);
});
