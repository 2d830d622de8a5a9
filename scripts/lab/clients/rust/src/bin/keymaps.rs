//! A Wayland client of scripts/lab/clients/compositor.c: asks for keymaps, each after many other messages, and compares what it maps.
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use wayland_client::protocol::{wl_keyboard, wl_registry, wl_seat};
use wayland_client::{Connection, Dispatch, EventQueue, QueueHandle};

#[derive(Default)]
struct Client {
    seat: Option<wl_seat::WlSeat>,
    keymap: Option<(OwnedFd, usize)>,
}

impl Dispatch<wl_registry::WlRegistry, ()> for Client {
    fn event(client: &mut Self, registry: &wl_registry::WlRegistry, event: wl_registry::Event, _: &(), _: &Connection, queue: &QueueHandle<Self>) {
        if let wl_registry::Event::Global { name, interface, .. } = event {
            if interface == "wl_seat" {
                client.seat = Some(registry.bind(name, 1, queue, ()));
            }
        }
    }
}

impl Dispatch<wl_seat::WlSeat, ()> for Client {
    fn event(_: &mut Self, _: &wl_seat::WlSeat, _: wl_seat::Event, _: &(), _: &Connection, _: &QueueHandle<Self>) {}
}

impl Dispatch<wl_keyboard::WlKeyboard, ()> for Client {
    fn event(client: &mut Self, _: &wl_keyboard::WlKeyboard, event: wl_keyboard::Event, _: &(), _: &Connection, _: &QueueHandle<Self>) {
        if let wl_keyboard::Event::Keymap { fd, size, .. } = event {
            client.keymap = Some((fd, size as usize));
        }
    }
}

/// compositor.c: keymap_byte()
fn expected(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + at / 256 + number * 13) as u8).collect()
}

fn mapped(descriptor: OwnedFd, size: usize) -> Vec<u8> {
    let length = rustix::fs::fstat(&descriptor).expect("fstat").st_size as usize;
    assert_eq!(length, size, "the size of the file behind the keymap's descriptor");
    unsafe {
        let start = mmap(std::ptr::null_mut(), size, ProtFlags::READ, MapFlags::PRIVATE, &descriptor, 0).expect("mapping the keymap");
        let bytes = std::slice::from_raw_parts(start as *const u8, size).to_vec();
        munmap(start, size).expect("unmapping");
        bytes
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn trips(queue: &mut EventQueue<Client>, client: &mut Client, number: usize) {
    for _ in 0..number {
        queue.roundtrip(client).expect("a round trip");
    }
}

fn main() {
    let path = std::env::args().nth(1).expect("a socket");
    let connection = Connection::from_socket(UnixStream::connect(path).expect("connecting")).expect("a connection");
    let mut queue: EventQueue<Client> = connection.new_event_queue();
    let handle = queue.handle();
    let mut client = Client::default();
    connection.display().get_registry(&handle, ());
    trips(&mut queue, &mut client, 2);
    let seat = client.seat.take().expect("a seat");
    let descriptors = open_descriptors();
    for number in 0..12 {
        trips(&mut queue, &mut client, number * 5);
        seat.get_keyboard(&handle, ());
        trips(&mut queue, &mut client, 1);
        let (descriptor, size) = client.keymap.take().expect("a keymap");
        assert!(mapped(descriptor, size) == expected(number, size), "keymap {number} has other bytes");
    }
    trips(&mut queue, &mut client, 20);
    assert!(client.keymap.is_none(), "a keymap that nobody asked for");
    assert_eq!(open_descriptors(), descriptors, "this program's descriptors");
}
