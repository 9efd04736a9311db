//! `test-images NAME...`: makes the images and prints their OCI layout directories.

fn main() -> std::process::ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        eprintln!("usage: test-images NAME...\n");
        for (name, about) in test_images::images() {
            eprintln!("  {name:14} {about}");
        }
        return 2.into();
    }
    for name in names {
        match test_images::build(&name) {
            Ok(layout) => println!("{}", layout.display()),
            Err(error) => {
                eprintln!("error: cannot make test image `{name}`: {error}");
                return 1.into();
            }
        }
    }
    0.into()
}
