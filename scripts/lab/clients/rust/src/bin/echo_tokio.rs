//! An echo server and its clients on tokio, in one thread.
use shunt_clients::{answer, arguments, expect_echoes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

fn main() -> std::io::Result<()> {
    let given = arguments();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        if given.verb == "serve" {
            let listener = UnixListener::bind(&given.socket)?;
            loop {
                let (mut stream, _) = listener.accept().await?;
                tokio::spawn(async move { answer!(stream) });
            }
        }
        let mut tasks = Vec::new();
        for who in 0..given.connections {
            let mut stream = UnixStream::connect(&given.socket).await?;
            let rounds = given.rounds;
            tasks.push(tokio::spawn(async move { expect_echoes!(stream, who, rounds) }));
        }
        for task in tasks {
            task.await.expect("a task that ended")?;
        }
        Ok(())
    })
}
