//! A plan as a page that needs nothing but itself.

use minijinja::value::Serde;
use minijinja::{Environment, context};

use super::Plan;
use crate::units;

const TEMPLATE: &str = include_str!("../../templates/fleet/plan.html");

/// The page. All that comes from outside is escaped.
///
/// # Errors
/// If the template does not fit the plan, which would be a mistake in dock2uni.
pub fn page(plan: &Plan) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.add_filter("bytes", units::bytes);
    // The name's ending turns escaping on.
    environment.add_template("plan.html", TEMPLATE)?;
    let saved = plan.totals.saved();
    let values = context! { plan => Serde(plan), saved };
    environment.get_template("plan.html")?.render(values)
}
