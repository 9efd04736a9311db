//! Machines that a schedule starts: CronJobs of Kubernetes, for targets with something that starts
//! them. KubeVirt gets CronJobs, Nomad periodic jobs, and hosts timers of systemd.
//!
//! A machine has one name and one address, so a run that is still going on is not joined by another,
//! whatever the CronJob's `concurrencyPolicy` allows.

use serde::Serialize;

use super::super::cron::Cron;
use super::super::{Kind, Workload};
use super::{Error, Target, wrong};

/// When a machine is started.
#[derive(Clone, Debug, Serialize)]
pub struct Timer {
    /// In cron's words.
    pub cron: String,
    /// In systemd's; each of them counts.
    pub calendar: Vec<String>,
    /// Name of the time zone.
    pub time_zone: String,
    /// It is not started for the time being.
    pub suspended: bool,
}

/// The timer of a workload, if a schedule starts it.
///
/// # Errors
/// If the target can't do what it says.
pub fn timer(
    workload: &Workload,
    all: &[Workload],
    target: Target,
) -> Result<Option<Timer>, Error> {
    if workload.kind != Kind::CronJob {
        return Ok(None);
    }
    let Some(schedule) = &workload.schedule else {
        return Err(wrong(
            workload,
            "it is started by a schedule, which its plan does not have",
            "plan again, or export its manifest",
        ));
    };
    let what = format!("it is started by a schedule, `{}`", schedule.cron);
    let hint = match target {
        Target::KubeVirt
        | Target::Libvirt
        | Target::Nomad
        | Target::Firecracker
        | Target::CloudHypervisor => None,
        Target::Systemd => Some(
            "the unit runs `fleet up`, whose network has no place for machines that come later: \
             export to libvirt, which gets timers of systemd, or leave it out",
        ),
        Target::TerraformLibvirt | Target::TerraformGoogle => Some(
            "Terraform makes machines and starts none by the clock: export to libvirt, nomad or \
             kubevirt, or leave it out",
        ),
    };
    if let Some(hint) = hint {
        return Err(wrong(workload, what, hint));
    }
    let cron: Cron = schedule.cron.parse().map_err(|error: String| {
        wrong(workload, error, "five fields as in crontab(5), such as \"30 3 * * 1-5\"")
    })?;
    if schedule.replaces {
        return Err(wrong(
            workload,
            format!("{what}, and ends the run before it"),
            "no target ends a machine for the next one: set `concurrencyPolicy: Forbid`",
        ));
    }
    let pod = workload.name.rsplit_once('/').map_or("", |(pod, _)| pod);
    let of_pod = |other: &&Workload| other.name.rsplit_once('/').is_some_and(|(p, _)| p == pod);
    if all.iter().filter(of_pod).count() > 1 {
        return Err(wrong(
            workload,
            format!("{what}, with other containers of its pod"),
            "a timer starts one machine: put what the containers do into one",
        ));
    }
    // As controllers of Kubernetes have it in most clusters.
    let time_zone = schedule.time_zone.clone().unwrap_or_else(|| "UTC".to_owned());
    let fits = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
    if time_zone.is_empty() || !time_zone.chars().all(fits) {
        let text = format!("`{time_zone}` is no name of a time zone");
        return Err(wrong(workload, text, "such as Europe/Berlin"));
    }
    Ok(Some(Timer {
        calendar: cron.calendar(&time_zone),
        cron: schedule.cron.clone(),
        suspended: schedule.suspended,
        time_zone,
    }))
}
