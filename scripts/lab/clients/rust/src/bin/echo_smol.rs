//! An echo server and its clients on smol, in one thread.
use shunt_clients::{answer, arguments, expect_echoes};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::unix::{UnixListener, UnixStream};
use smol::LocalExecutor;

fn main() -> std::io::Result<()> {
    let given = arguments();
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        if given.verb == "serve" {
            let listener = UnixListener::bind(&given.socket)?;
            loop {
                let (mut stream, _) = listener.accept().await?;
                executor.spawn(async move { answer!(stream) }).detach();
            }
        }
        let mut tasks = Vec::new();
        for who in 0..given.connections {
            let mut stream = UnixStream::connect(&given.socket).await?;
            let rounds = given.rounds;
            tasks.push(executor.spawn(async move { expect_echoes!(stream, who, rounds) }));
        }
        for task in tasks {
            task.await?;
        }
        Ok(())
    }))
}
