//! A plan as a page that needs nothing but itself.

use minijinja::value::Serde;
use minijinja::{Environment, context};

use super::Plan;

const TEMPLATE: &str = include_str!("../../templates/fleet/plan.html");

/// The page. All that comes from outside is escaped.
///
/// # Errors
/// If the template does not fit the plan, which would be a mistake in dock2uni.
pub fn page(plan: &Plan) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.add_filter("bytes", bytes);
    // The name's ending turns escaping on.
    environment.add_template("plan.html", TEMPLATE)?;
    let saved = plan.totals.saved();
    let values = context! { plan => Serde(plan), saved };
    environment.get_template("plan.html")?.render(values)
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", count as f64 / 1_073_741_824.0),
    }
}
