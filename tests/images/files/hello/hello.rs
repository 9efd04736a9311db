//! Says what it was given, and exits with the status that `EXIT` asks for.

fn main() {
    println!("hello from pid {}", std::process::id());
    for (index, argument) in std::env::args_os().enumerate() {
        println!("argument {index}: {}", argument.to_string_lossy());
    }
    let status = std::env::var("EXIT").ok().and_then(|status| status.parse().ok()).unwrap_or(0);
    std::process::exit(status);
}
