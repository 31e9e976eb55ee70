// If this compiled, the child would be lent a socket that it does not have.

struct Server {
    port: u16,
}

#[mproc::entry]
fn serve(server: &Server) -> u16 {
    server.port
}

fn main() {}
