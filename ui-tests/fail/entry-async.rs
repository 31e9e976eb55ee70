// If this compiled, the child would return a future that nobody polls.

#[mproc::entry]
async fn fetch(url: &str) -> String {
    url.to_owned()
}

fn main() {
    let page: mproc::Result<String> = fetch::spawn("x").and_then(|child| child.join());
    drop(page);
}
