//! Which machine comes when.

use super::Machine;

/// Those that others need come first; where there is a circle, the order of the source stands.
pub fn sort(machines: &mut Vec<Machine>) {
    let mut left = std::mem::take(machines);
    while !left.is_empty() {
        let free = left.iter().position(|machine| {
            !machine.after.iter().any(|after| left.iter().any(|other| other.service == *after))
        });
        machines.push(left.remove(free.unwrap_or(0)));
    }
}

/// Spreads sorted machines over the three moments that Nomad has ("lifecycle block"): before, with and
/// after the main tasks.
///
/// What others need to have ended runs before, and what that needs as well; so does what is needed and
/// needs nothing. Of a longer chain the rest comes after the main tasks, all at once.
pub fn hooks(machines: &mut [Machine]) {
    let ended: Vec<String> = machines.iter().flat_map(|m| m.ended.clone()).collect();
    let mut before: Vec<String> = machines
        .iter()
        .filter(|machine| {
            let needed = machines.iter().any(|other| other.after.contains(&machine.service));
            ended.contains(&machine.service) || needed && machine.after.is_empty()
        })
        .map(|machine| machine.service.clone())
        .collect();
    let mut nth = 0;
    while let Some(service) = before.get(nth) {
        let of = machines.iter().filter(|machine| machine.service == *service);
        let needs: Vec<String> = of.flat_map(|machine| machine.after.clone()).collect();
        for need in needs {
            if !before.contains(&need) {
                before.push(need);
            }
        }
        nth += 1;
    }
    let first = |machine: &Machine| machine.after.iter().all(|after| before.contains(after));
    // A group without a main task is none: a circle has one as well.
    let any = machines.iter().any(|machine| !before.contains(&machine.service) && first(machine));
    for machine in machines {
        machine.long_running &= !ended.contains(&machine.service);
        machine.hook = if before.contains(&machine.service) {
            "prestart"
        } else if first(machine) || !any {
            ""
        } else {
            "poststart"
        };
    }
}
