//! An echo server and its clients on async-io's own type, in one thread.
use shunt_clients::{answer, arguments, expect_echoes};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, LocalExecutor};
use std::os::unix::net::{UnixListener, UnixStream};

fn main() -> std::io::Result<()> {
    let given = arguments();
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        if given.verb == "serve" {
            let listener = Async::<UnixListener>::bind(&given.socket)?;
            loop {
                let (mut stream, _) = listener.accept().await?;
                executor.spawn(async move { answer!(stream) }).detach();
            }
        }
        let mut tasks = Vec::new();
        for who in 0..given.connections {
            let mut stream = Async::<UnixStream>::connect(&given.socket).await?;
            let rounds = given.rounds;
            tasks.push(executor.spawn(async move { expect_echoes!(stream, who, rounds) }));
        }
        for task in tasks {
            task.await?;
        }
        Ok(())
    }))
}
