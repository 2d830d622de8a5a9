// HTTP over the unix socket argv[3], for Node and what runs its programs. `serve`: answers each request with its body, until SIGTERM.
// `ask`: keep-alive clients, each of which expects exactly its own bytes back.
const http = require('http');
const {createHash} = require('crypto');
const [, , verb, socketPath] = process.argv;
const CLIENTS = 6, REQUESTS = 60;

function serve() {
  const server = http.createServer((request, response) => {
    const pieces = [];
    request.on('data', (piece) => pieces.push(piece));
    request.on('end', () => {
      const body = Buffer.concat(pieces);
      response.writeHead(200, {'Content-Type': 'application/octet-stream', 'Content-Length': body.length});
      response.end(body);
    });
  });
  process.on('SIGTERM', () => process.exit(0));
  server.listen(socketPath);
}

function body(client, number) {
  const seed = createHash('sha256').update(`${client} ${number}`).digest();
  const size = number % 5 === 4 ? 1 + seed.readUInt32LE(0) % 200000 : 1 + seed.readUInt32LE(4) % 700;
  const bytes = Buffer.alloc(size, seed);
  bytes.writeUInt8(number % 256, size - 1);
  return bytes;
}

function request(agent, bytes) {
  return new Promise((resolve, reject) => {
    const asked = http.request({agent, socketPath, path: '/echo', method: 'POST', headers: {'Content-Length': bytes.length}}, (response) => {
      const pieces = [];
      response.on('data', (piece) => pieces.push(piece));
      response.on('error', reject);
      response.on('end', () => resolve({status: response.statusCode, bytes: Buffer.concat(pieces)}));
    });
    asked.on('error', reject);
    asked.end(bytes);
  });
}

async function converse(client) {
  const agent = new http.Agent({keepAlive: true, maxSockets: 1});
  for (let number = 0; number < REQUESTS; ++number) {
    const sent = body(client, number), got = await request(agent, sent);
    if (got.status !== 200 || !got.bytes.equals(sent))
      throw new Error(`client ${client}, request ${number}: status ${got.status}, ${got.bytes.length} of ${sent.length} bytes`);
  }
  agent.destroy();
}

if (verb === 'serve') {
  serve();
} else {
  Promise.all(Array.from({length: CLIENTS}, (_, client) => converse(client))).then(() => process.exit(0), (problem) => {
    console.error(problem);
    process.exit(1);
  });
}
