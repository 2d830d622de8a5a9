// Many connections to the echo server at argv[2]; each expects exactly its own bytes back, and then the end. argv[3]: how many, argv[4]: rounds.
const net = require('net');
const [path, connections, rounds] = [process.argv[2], Number(process.argv[3] || 20), Number(process.argv[4] || 60)];

function numbers(seed) {  // mulberry32
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function fail(text) {
  console.error(text);
  process.exit(1);
}

let right = 0, living = connections;
for (let seed = 1; seed <= connections; seed++) {
  const next = numbers(seed);
  const socket = net.connect(path);
  let round = 0, message, received;
  const send = () => {
    if (round++ === rounds) return socket.end();
    const size = 1 + Math.floor(next() * (next() < 0.8 ? 300 : 300000));
    const first = Math.floor(next() * 256);
    message = Buffer.alloc(size);
    for (let i = 0; i < size; i++) message[i] = (first + i * 7 + (i >> 8)) & 255;
    received = 0;
    socket.write(message);
  };
  socket.on('connect', send);
  socket.on('data', (data) => {
    if (message.compare(data, 0, data.length, received, received + data.length) !== 0)
      fail(`connection ${seed}: ${data.length} bytes differ at ${received} of ${message.length}`);
    received += data.length;
    if (received === message.length) right++, send();
  });
  socket.on('error', (error) => fail(`connection ${seed}: ${error}`));
  socket.on('end', () => {
    if (round <= rounds) fail(`connection ${seed}: ended in round ${round}`);
    if (--living === 0) console.log(`${right} answers right`);
  });
}
