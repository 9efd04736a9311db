//! What a schedule starts.

use super::*;
use crate::fleet::kube;

const MANIFESTS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: web, image: example.org/web:1}]}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tidy}
spec:
  schedule: "15 3 1 * mon"
  timeZone: Europe/Berlin
  SPEC
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
          - name: tidy
            image: example.org/tidy:1
            env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: api, key: token}}}]
"#;

fn timed(target: Target, spec: &str) -> Result<Vec<Rendered>, Error> {
    let text = MANIFESTS.replace("SPEC", spec);
    let documents = yaml::documents(&text, "fleet.yaml").unwrap();
    let documents: Vec<_> =
        documents.into_iter().map(|document| ("fleet.yaml".to_owned(), document)).collect();
    let workloads = kube::workloads(&documents).unwrap();
    let (_, settings) = workloads_of(target, "services: {x: {image: x}}");
    let (mut machines, _) = machine::machines(&workloads, &settings)?;
    for machine in &mut machines {
        machine.disk = format!("/srv/vms/disks/{}.qcow2", machine.name);
        machine.boot = format!("/srv/vms/boot/{}", machine.name);
    }
    render::render(&machines, &settings)
}

#[test]
fn kubevirt_gets_a_cronjob_that_starts_the_machine() {
    let all = timed(Target::KubeVirt, "suspend: true").unwrap();
    let text = file(&all, "kubevirt.yaml");
    let documents = yaml::documents(text, "kubevirt.yaml").unwrap();
    let find = |kind: &str| documents.iter().filter(|d| d["kind"] == kind).collect::<Vec<_>>();
    let machines = find("VirtualMachine");
    let strategies: Vec<_> = machines.iter().map(|vm| &vm["spec"]["runStrategy"]).collect();
    assert_eq!(strategies, ["Always", "Manual"]);
    let cron = &find("CronJob")[0]["spec"];
    assert_eq!(
        (&cron["schedule"], &cron["timeZone"]),
        (&"15 3 1 * mon".into(), &"Europe/Berlin".into())
    );
    assert_eq!(cron["suspend"], true);
    let pod = &cron["jobTemplate"]["spec"]["template"]["spec"];
    let place =
        "/apis/subresources.kubevirt.io/v1/namespaces/$(NAMESPACE)/virtualmachines/tidy/start";
    assert_eq!(pod["containers"][0]["args"][2], place);
    // It may start this machine, and nothing else.
    let rule = &find("Role")[0]["rules"][0];
    assert_eq!((&rule["resourceNames"][0], &rule["verbs"][0]), (&"tidy".into(), &"update".into()));
    assert_eq!(rule["resourceNames"].as_array().unwrap().len(), 1);
    let account = &find("ServiceAccount")[0]["metadata"]["name"];
    assert_eq!(&pod["serviceAccountName"], account);
    assert!(text.contains("--serviceaccount=NAMESPACE:shop-timers\n"), "{text}");
    assert!(held_to_schemas(text) >= 4);
    // Nothing of it where nothing is timed.
    assert!(!file(&files(Target::KubeVirt, ""), "kubevirt.yaml").contains("timers"));
}

#[test]
fn nomad_gets_a_periodic_job() {
    let all = timed(Target::Nomad, "").unwrap();
    let main = file(&all, "shop.nomad.hcl");
    assert!(main.contains("task \"web\"") && !main.contains("tidy"), "{main}");
    let text = file(&all, "shop-tidy.nomad.hcl");
    nomad::check(text);
    let job: serde_json::Value = hcl::from_str(text).unwrap();
    let job = &job["job"]["shop-tidy"];
    assert_eq!(job["type"], "batch");
    let periodic = &job["periodic"];
    assert_eq!(periodic["crons"][0], "15 3 1 * mon");
    assert_eq!(periodic["time_zone"], "Europe/Berlin");
    assert_eq!(periodic["enabled"], true);
    // Only this job reads its variable.
    assert!(text.contains("nomad/jobs/shop-tidy"), "{text}");
    // Both are on the one network.
    assert_eq!(file(&all, "dnsmasq.conf").matches("\ndhcp-host=").count(), 2);
}

#[test]
fn hosts_get_timers() {
    for target in [Target::Libvirt, Target::Firecracker, Target::CloudHypervisor] {
        let all = timed(target, "").unwrap();
        let timer = file(&all, "shop-tidy.timer");
        assert!(timer.contains("\nOnCalendar=*-*-01 03:15:00 Europe/Berlin\n"), "{timer}");
        assert!(timer.contains("\nOnCalendar=mon *-*-* 03:15:00 Europe/Berlin\n"), "{timer}");
        let service = file(&all, "shop-tidy.service");
        let start = file(&all, "start.sh");
        accepted("start.sh", start, &["sh", "-n"]);
        match target {
            Target::Libvirt => {
                assert!(service.contains("virsh start shop-tidy\n"), "{service}");
                assert!(start.contains("define 'tidy.xml'"), "{start}");
                assert!(!start.contains("start 'shop-tidy'"), "{start}");
            }
            _ => {
                assert!(service.contains("start.sh\" run tidy\n"), "{service}");
                // With the arguments `run tidy`, and only then.
                let at = |text: &str| start.find(text).unwrap_or_else(|| panic!("{text}: {start}"));
                assert!(at("= 'run tidy' ]") < at("secrets() {"));
                assert!(at("secrets() {") < at("ip link add"));
                assert_eq!(start.matches("\nstart() {").count(), 1, "{start}");
            }
        }
        let text = service.replace("/srv/vms of & the <shop>/start.sh", "/bin/true");
        let dir = tempfile::tempdir().unwrap();
        let paths = ["shop-tidy.timer", "shop-tidy.service"].map(|name| dir.path().join(name));
        std::fs::write(&paths[0], timer).unwrap();
        std::fs::write(&paths[1], text).unwrap();
        match Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&paths).output() {
            Ok(output) => assert!(output.status.success(), "{output:?}\n{timer}\n{service}"),
            Err(_) => eprintln!("SKIPPED: no systemd-analyze"),
        }
    }
}

#[test]
fn what_nothing_can_time_is_refused_by_name() {
    for target in [Target::Systemd, Target::TerraformLibvirt, Target::TerraformGoogle] {
        let error = timed(target, "").unwrap_err();
        assert!(error.to_string().contains("started by a schedule, `15 3 1 * mon`"), "{error}");
        assert!(error.hint().unwrap().contains("export to libvirt"), "{error}");
    }
    let error = timed(Target::Nomad, "concurrencyPolicy: Replace").unwrap_err();
    assert!(error.hint().unwrap().contains("concurrencyPolicy: Forbid"), "{error}");
}
