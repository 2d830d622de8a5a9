//! Both ends of calls over a message bus, with bytes and with descriptors: `serve ADDRESS` answers until told to quit, `ask ADDRESS` checks every answer.
use rustix::fs::{memfd_create, MemfdFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shunt_clients::message;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::exit;
use std::time::Duration;
use zbus::blocking::{connection::Builder, Connection, Proxy};
use zbus::zvariant::{DynamicType, OwnedFd, Type};

const NAME: &str = "shunt.Zbus";
const PATH: &str = "/shunt";

fn file_with(data: &[u8]) -> OwnedFd {
    let mut file = File::from(memfd_create("made", MemfdFlags::CLOEXEC).expect("a memfd"));
    file.write_all(data).expect("writing");
    file.seek(SeekFrom::Start(0)).expect("seeking");
    OwnedFd::from(std::os::fd::OwnedFd::from(file))
}

fn bytes_of(descriptor: OwnedFd) -> Vec<u8> {
    let mut data = Vec::new();
    File::from(std::os::fd::OwnedFd::from(descriptor)).read_to_end(&mut data).expect("reading the file behind a descriptor");
    data
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

struct Service;

#[zbus::interface(name = "shunt.Zbus")]
impl Service {
    fn echo(&self, data: Vec<u8>) -> Vec<u8> {
        data
    }
    fn read(&self, descriptor: OwnedFd) -> Vec<u8> {
        bytes_of(descriptor)
    }
    fn make(&self, who: u32, number: u32) -> OwnedFd {
        file_with(&message(who as usize, number as usize))
    }
    /// How many descriptors this process has.
    fn descriptors(&self) -> u32 {
        open_descriptors() as u32
    }
    fn quit(&self) {
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(100)); // the reply goes first
            exit(0);
        });
    }
}

fn serve(address: &str) -> zbus::Result<()> {
    let _connection = Builder::address(address)?.name(NAME)?.serve_at(PATH, Service)?.build()?;
    println!("ready");
    loop {
        std::thread::park();
    }
}

/// The reply, which has to bring exactly that many descriptors.
fn call<A: Serialize + DynamicType, R: DeserializeOwned + Type>(service: &Proxy<'_>, method: &str, arguments: &A, descriptors: usize) -> zbus::Result<R> {
    let reply = service.call_method(method, arguments)?;
    assert_eq!(reply.data().fds().len(), descriptors, "descriptors that came with the reply to {method}");
    reply.body().deserialize()
}

fn ask(address: &str) -> zbus::Result<()> {
    let connection: Connection = Builder::address(address)?.build()?;
    let service = Proxy::new(&connection, NAME, PATH, NAME)?;
    let (mine, theirs) = (open_descriptors(), call::<_, u32>(&service, "Descriptors", &(), 0)?);
    for number in 0..200 {
        let data = message(1, number);
        assert!(call::<_, Vec<u8>>(&service, "Echo", &(&data,), 0)? == data, "echo {number} differs");
        // Late: a descriptor keeps a connection on the kernel.
        if number >= 100 && number % 10 == 9 {
            assert!(call::<_, Vec<u8>>(&service, "Read", &(file_with(&data),), 0)? == data, "descriptor {number} led to other bytes");
            let came: OwnedFd = call(&service, "Make", &(2u32, number as u32), 1)?;
            assert!(bytes_of(came) == message(2, number), "the descriptor that came as {number} leads to other bytes");
        }
    }
    assert_eq!(call::<_, u32>(&service, "Descriptors", &(), 0)?, theirs, "the service's descriptors");
    assert_eq!(open_descriptors(), mine, "the caller's descriptors");
    service.call::<_, _, ()>("Quit", &())
}

fn main() -> zbus::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    match words[1].as_str() {
        "serve" => serve(&words[2]),
        _ => ask(&words[2]),
    }
}
