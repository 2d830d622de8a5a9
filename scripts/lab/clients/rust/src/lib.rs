//! What the programs have in common: messages that both ends can compute, and the two halves of an echo, over whatever stream has the methods.

/// The message that stops a server, as the first that a connection says.
pub const STOP: &[u8] = b"end of the server";

pub const PIECE: usize = 65536;

/// A message of connection `who`: its bytes follow from its number.
pub fn message(who: usize, number: usize) -> Vec<u8> {
    let mut state = (who as u64 * 1_000_003 + number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let size = if number % 5 == 4 { 1 + next() % 60_000 } else { 1 + next() % 300 };
    (0..size).map(|_| (next() >> 24) as u8).collect()
}

/// Sends back what it receives, until the end.
#[macro_export]
macro_rules! answer {
    ($stream:expr) => {{
        let mut buffer = vec![0; $crate::PIECE];
        let mut first = true;
        loop {
            let size = $stream.read(&mut buffer).await?;
            if size == 0 {
                break std::io::Result::Ok(());
            }
            if first && &buffer[..size] == $crate::STOP {
                std::process::exit(0);
            }
            first = false;
            $stream.write_all(&buffer[..size]).await?;
        }
    }};
}

/// Expects its own bytes back, message by message.
#[macro_export]
macro_rules! expect_echoes {
    ($stream:expr, $who:expr, $rounds:expr) => {{
        for number in 0..$rounds {
            let sent = $crate::message($who, number);
            let mut got = vec![0; sent.len()];
            $stream.write_all(&sent).await?;
            $stream.read_exact(&mut got).await?;
            assert!(got == sent, "connection {}: answer {number} of {} bytes differs", $who, sent.len());
        }
        std::io::Result::Ok(())
    }};
}

pub struct Arguments {
    pub verb: String,
    pub socket: String,
    pub connections: usize,
    pub rounds: usize,
}

/// `serve SOCKET` or `ask SOCKET [CONNECTIONS [ROUNDS]]`
pub fn arguments() -> Arguments {
    let words: Vec<String> = std::env::args().collect();
    let number = |at: usize, default| words.get(at).map_or(default, |word: &String| word.parse().expect("a number"));
    Arguments { verb: words[1].clone(), socket: words[2].clone(), connections: number(3, 6), rounds: number(4, 150) }
}
