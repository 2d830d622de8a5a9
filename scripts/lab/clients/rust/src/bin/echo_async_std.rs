//! An echo server and its clients on async-std, whose executor has one thread beside the main one.
use async_std::io::{ReadExt, WriteExt};
use async_std::os::unix::net::{UnixListener, UnixStream};
use async_std::task;
use shunt_clients::{answer, arguments, expect_echoes};

fn main() -> std::io::Result<()> {
    std::env::set_var("ASYNC_STD_THREAD_COUNT", "1");
    let given = arguments();
    task::block_on(async {
        if given.verb == "serve" {
            let listener = UnixListener::bind(&given.socket).await?;
            loop {
                let (mut stream, _) = listener.accept().await?;
                task::spawn(async move { answer!(stream) });
            }
        }
        let mut tasks = Vec::new();
        for who in 0..given.connections {
            let mut stream = UnixStream::connect(&given.socket).await?;
            let rounds = given.rounds;
            tasks.push(task::spawn(async move { expect_echoes!(stream, who, rounds) }));
        }
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
}
