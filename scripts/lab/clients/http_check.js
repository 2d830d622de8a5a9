// Requests to the server at argv[2] on connections that are kept; each expects its own body back.
const http = require('http');
const agent = new http.Agent({keepAlive: true, maxSockets: 5});
const total = 300;
let asked = 0, right = 0;

function ask() {
  if (asked === total) return;
  const number = asked++;
  const body = Buffer.alloc(1 + (number * 7919) % (number % 10 ? 300 : 200000), `body ${number} `);
  const request = http.request({socketPath: process.argv[2], method: 'POST', agent}, (response) => {
    const parts = [];
    response.on('data', (part) => parts.push(part));
    response.on('end', () => {
      if (!Buffer.concat(parts).equals(body)) {
        console.error(`answer ${number} differs`);
        process.exit(1);
      }
      if (++right === total) return console.log(`${right} answers right`), agent.destroy();
      ask();
    });
  });
  request.on('error', (error) => {
    console.error(`request ${number}: ${error}`);
    process.exit(1);
  });
  request.end(body);
}
for (let i = 0; i < 5; i++) ask();
