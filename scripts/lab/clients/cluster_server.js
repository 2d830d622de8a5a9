// Two workers that send back what they receive on the unix socket argv[3], until SIGTERM; then each tells how many connections it had.
// argv[2]: `rr`, the primary accepts and passes the connections on, in turn; `none`, the workers accept themselves.
const cluster = require('cluster');
const [, , policy, path] = process.argv;
cluster.schedulingPolicy = policy === 'rr' ? cluster.SCHED_RR : cluster.SCHED_NONE;

if (cluster.isPrimary) {
  const workers = [cluster.fork(), cluster.fork()];
  let worst = 0, left = workers.length;
  cluster.on('listening', () => console.log('listening'));
  cluster.on('exit', (worker, status) => {
    worst = Math.max(worst, status === null ? 1 : status);
    if (--left === 0) process.exit(worst);
  });
  process.on('SIGTERM', () => workers.forEach((worker) => worker.process.kill('SIGTERM')));
} else {
  let connections = 0;
  const server = require('net').createServer({allowHalfOpen: true}, (connection) => {
    ++connections;
    connection.pipe(connection);
  });
  process.on('SIGTERM', () => {
    require('fs').writeSync(1, `had ${connections}\n`);
    process.exit(0);
  });
  server.listen(path);
}
