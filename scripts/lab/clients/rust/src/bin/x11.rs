//! An X11 client of the display argv[1]: atoms, properties and pictures, each compared when it comes back.
use shunt_clients::message;
use std::error::Error;
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt, CreateGCAux, CreateWindowAux, ImageFormat, PropMode, WindowClass};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

const SIDE: u16 = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let display = std::env::args().nth(1).expect("a display");
    let (server, number) = RustConnection::connect(Some(&display))?;
    let screen = &server.setup().roots[number];
    let window = server.generate_id()?;
    server.create_window(0, window, screen.root, 0, 0, 10, 10, 0, WindowClass::INPUT_OUTPUT, 0, &CreateWindowAux::new())?;
    let property = server.intern_atom(false, b"SHUNT_BYTES")?.reply()?.atom;
    for round in 0..150 {
        let name = format!("SHUNT_{round}");
        let atom = server.intern_atom(false, name.as_bytes())?.reply()?.atom;
        assert!(server.get_atom_name(atom)?.reply()?.name == name.as_bytes(), "atom {round} has another name");
        let bytes = message(3, round);
        server.change_property8(PropMode::REPLACE, window, property, AtomEnum::STRING, &bytes)?;
        let got = server.get_property(false, window, property, AtomEnum::STRING, 0, 100_000)?.reply()?.value;
        assert!(got == bytes, "property {round} of {} bytes differs", bytes.len());
    }
    let (pixmap, context) = (server.generate_id()?, server.generate_id()?);
    server.create_pixmap(screen.root_depth, pixmap, screen.root, SIDE, SIDE)?;
    server.create_gc(context, pixmap, &CreateGCAux::new())?;
    for round in 0..20 {
        let picture: Vec<u8> = message(4, round).into_iter().cycle().take(usize::from(SIDE) * usize::from(SIDE) * 4).collect();
        server.put_image(ImageFormat::Z_PIXMAP, pixmap, context, SIDE, SIDE, 0, 0, 0, screen.root_depth, &picture)?;
        let got = server.get_image(ImageFormat::Z_PIXMAP, pixmap, 0, 0, SIDE, SIDE, !0)?.reply()?.data;
        // The fourth byte of a pixel is padding.
        let same = got.len() == picture.len() && got.chunks(4).zip(picture.chunks(4)).all(|(a, b)| a[..3] == b[..3]);
        assert!(same, "picture {round} differs");
    }
    Ok(())
}
