use super::*;
use crate::fleet::{Condition, Health, MountKind, Origin, Reach, Restart, Role, Value as EnvValue};

fn read(text: &str) -> Result<Vec<Workload>, Error> {
    let documents = yaml::documents(text, "m.yaml")?;
    let documents: Vec<Document> =
        documents.into_iter().map(|value| ("m.yaml".to_owned(), value)).collect();
    workloads(&documents)
}

const SHOP: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, namespace: shop}
data: {MODE: prod, WORKERS: "4"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: shop}
data: {TOKEN: c2VjcmV0}
---
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, namespace: shop}
  spec:
    replicas: 3
    template:
      metadata: {labels: {app: web}}
      spec:
        terminationGracePeriodSeconds: 10
        securityContext:
          runAsUser: 1000
          runAsGroup: 2000
          sysctls: [{name: net.core.somaxconn, value: "1024"}]
        initContainers:
        - {name: migrate, image: app:1, args: [migrate]}
        - {name: proxy, image: proxy:2, restartPolicy: Always}
        containers:
        - name: app
          image: app:1
          command: ["/bin/app"]
          args: ["--workers", "$(WORKERS)", "$$(KEPT)", "$(UNKNOWN)"]
          envFrom:
          - configMapRef: {name: conf}
          - secretRef: {name: keys}
          env:
          - {name: URL, value: "http://$(MODE)"}
          - name: PASSWORD
            valueFrom: {secretKeyRef: {name: db, key: pw}}
          - name: NODE
            valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
          - name: NS
            valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
          ports: [{containerPort: 8080, name: http}, {containerPort: 9090}]
          resources: {limits: {cpu: 500m, memory: 256Mi}}
          readinessProbe: {httpGet: {path: /ready, port: http}}
          volumeMounts:
          - {name: tmp, mountPath: /tmp}
          - {name: conf, mountPath: /etc/app}
        volumes:
        - {name: tmp, emptyDir: {}}
        - {name: conf, configMap: {name: conf}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  template:
    spec:
      containers:
      - name: db
        image: postgres:16
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates: [{metadata: {name: data}}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tidy}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: Never, containers: [{name: t, image: tidy}]}
"#;

#[test]
fn deployments_with_all_that_surrounds_them() {
    let all = read(SHOP).unwrap();
    let names: Vec<_> = all.iter().map(|workload| workload.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "shop/deployment/web/migrate",
            "shop/deployment/web/proxy",
            "shop/deployment/web/app",
            "default/statefulset/db/db",
            "default/cronjob/tidy/t"
        ]
    );
    assert_eq!((all[0].role, all[1].role), (Role::Init, Role::Sidecar));
    let app = &all[2];
    assert_eq!((app.role, app.replicas, app.stop_grace), (Role::Main, 3, Some(10)));
    assert_eq!(app.user.as_deref(), Some("1000:2000"));
    assert_eq!(app.sysctls, ["net.core.somaxconn=1024"]);
    let value = |name: &str| &app.env.iter().find(|v| v.name == name).unwrap().value;
    assert_eq!(*value("MODE"), EnvValue::Text("prod".into()));
    assert_eq!(*value("URL"), EnvValue::Text("http://prod".into()));
    assert_eq!(*value("NS"), EnvValue::Text("shop".into()));
    assert_eq!(*value("NODE"), EnvValue::Runtime("spec.nodeName".into()));
    let manifest = Manifest { file: "m.yaml".into(), namespace: "shop".into() };
    let secret = |name: &str, key: &str, manifest| EnvValue::Secret {
        name: name.into(),
        key: key.into(),
        manifest,
    };
    assert_eq!(*value("TOKEN"), secret("keys", "TOKEN", Some(manifest)));
    assert_eq!(*value("PASSWORD"), secret("db", "pw", None));
    assert!(!format!("{app:?}").contains("c2VjcmV0"), "a secret's value has been read");
    let overrides = app.overrides();
    assert_eq!(overrides.entrypoint.as_deref(), Some("/bin/app"));
    assert_eq!(overrides.command, ["--workers", "4", "$(KEPT)", "$(UNKNOWN)"]);
    assert_eq!(
        app.ports.iter().map(|p| (p.guest, p.published)).collect::<Vec<_>>(),
        [(8080, false), (9090, false)]
    );
    let service = &app.services[0];
    assert_eq!((service.name.as_str(), service.reach), ("web", Reach::Inside));
    assert_eq!((service.ports[0].port, service.ports[0].guest), (80, 8080));
    assert!(service.own_address && all[0].services.is_empty() && all[1].services.is_empty());
    assert_eq!(all[0].restart, Restart::OnFailure);
    assert_eq!((app.resources.milli_cpus, app.resources.memory), (Some(500), Some(256 << 20)));
    assert!(matches!(&app.health, Some(Health::Http { path, .. }) if path == "/ready"));
    let mounts: Vec<_> = app.mounts.iter().map(|m| (m.kind, m.target.as_str())).collect();
    assert_eq!(
        mounts,
        [
            (MountKind::Scratch, "/tmp"),
            (MountKind::Config, "/etc/app/MODE"),
            (MountKind::Config, "/etc/app/WORKERS")
        ]
    );
    assert_eq!(app.mounts[1].origin, Some(Origin::Text("prod".into())));
    let needs: Vec<_> = app.depends_on.iter().map(|d| d.condition).collect();
    assert_eq!(needs, [Condition::Completed, Condition::Started]);
    assert_eq!(all[3].mounts[0].kind, MountKind::Volume);
    assert_eq!(all[4].replicas, 0);
}

#[test]
fn what_belongs_to_the_node_is_said() {
    let pod = |spec: &str| {
        let text =
            format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{{spec}}}}}");
        read(&text).unwrap().remove(0)
    };
    for spec in [
        "containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /v}]}], \
         volumes: [{name: v, hostPath: {path: /var/log}}]",
        "hostPID: true, containers: [{name: c, image: i}]",
        "containers: [{name: c, image: i, resources: {limits: {nvidia.com/gpu: 1}}}]",
        "nodeSelector: {kubernetes.io/arch: arm64}, containers: [{name: c, image: i}]",
    ] {
        let notes = pod(spec).notes;
        assert!(notes.iter().any(|note| note.severity == Severity::Blocker), "{spec}: {notes:?}");
    }
    let notes = pod("securityContext: {fsGroup: 7}, dnsConfig: {nameservers: [1.1.1.1]}, \
                     containers: [{name: c, image: i, lifecycle: {preStop: {exec: {command: [x]}}}, \
                     securityContext: {readOnlyRootFilesystem: true}, \
                     volumeMounts: [{name: v, mountPath: /v}]}], \
                     volumes: [{name: v, persistentVolumeClaim: {claimName: v}}]")
    .notes;
    let texts: Vec<&str> = notes.iter().map(|note| note.text.as_str()).collect();
    for expected in ["`preStop`", "group 7", "read-only root", "DNS settings"] {
        assert!(texts.iter().any(|text| text.contains(expected)), "{expected}: {texts:?}");
    }
    let notes = pod("hostNetwork: true, containers: [{name: c, image: i}]").notes;
    assert_eq!(notes.len(), 1);
    assert_eq!(notes[0].severity, Severity::Warning);
}

#[test]
fn kinds_of_operators_that_hold_pods_are_read() {
    let text = "{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: web}, spec: {replicas: 3, \
                template: {spec: {containers: [{name: c, image: i}]}}}}\n---\n\
                {apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: fn}, \
                spec: {template: {spec: {containers: [{image: j}]}}}}\n---\n\
                {apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}\n";
    let all = read(text).unwrap();
    let names: Vec<&str> = all.iter().map(|workload| workload.name.as_str()).collect();
    assert_eq!(names, ["default/rollout/web/c", "default/service/fn/fn"]);
    assert_eq!(all[0].replicas, 3);
    let note = &all[0].notes[0];
    assert_eq!(note.severity, Severity::Warning);
    assert!(note.text.starts_with("a `Rollout` of `argoproj.io/v1alpha1`"), "{note:?}");
}

#[test]
fn errors_name_the_object() {
    for (text, expected) in [
        ("{apiVersion: v1, kind: Pod, metadata: {name: p}}", "Pod default/p: the pod has no"),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: []}}",
            "no `containers`",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a}]}}",
            "Pod default/p.spec.containers.0: the container `a` has no `image`",
        ),
        ("{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {}}", "spec.template"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(read("{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}").unwrap().is_empty());
    assert!(read("some: values\n").unwrap().is_empty());
}

const FILES: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: conf}
data: {a.conf: "a = 1", run.sh: "exec app"}
binaryData: {logo.bin: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: tls}
data: {tls.crt: Y2VydA==, tls.key: a2V5}
stringData: {note: plain}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - name: c
    image: i
    volumeMounts:
    - {name: conf, mountPath: /etc/app/}
    - {name: one, mountPath: /etc/one.conf, subPath: nested/one.conf}
    - {name: tls, mountPath: /etc/tls}
    - {name: all, mountPath: /all}
    - {name: gone, mountPath: /gone}
  volumes:
  - {name: conf, configMap: {name: conf, defaultMode: 0755}}
  - {name: one, configMap: {name: conf, items: [{key: a.conf, path: nested/one.conf, mode: 256}]}}
  - {name: tls, secret: {secretName: tls, items: [{key: tls.key, path: private/key.pem}]}}
  - name: all
    projected:
      sources:
      - secret: {name: tls, items: [{key: note, path: note}]}
      - configMap: {name: conf, items: [{key: logo.bin, path: logo}]}
      - downwardAPI: {items: []}
  - {name: gone, secret: {secretName: nowhere, optional: true}}
"#;

#[test]
fn volumes_are_files_of_config_maps_and_secrets() {
    let all = read(FILES).unwrap();
    let pod = &all[0];
    let found: Vec<_> = pod
        .mounts
        .iter()
        .map(|mount| (mount.kind, mount.target.as_str(), mount.mode.unwrap_or(0)))
        .collect();
    use MountKind::{Config, Secret};
    assert_eq!(
        found,
        [
            (Config, "/etc/app/a.conf", 0o755),
            (Config, "/etc/app/run.sh", 0o755),
            (Config, "/etc/app/logo.bin", 0o755),
            (Config, "/etc/one.conf", 0o400),
            (Secret, "/etc/tls/private/key.pem", 0o644),
            (Secret, "/all/note", 0o644),
            (Config, "/all/logo", 0o644)
        ]
    );
    assert_eq!(pod.mounts[2].origin, Some(Origin::Bytes("AAEC".into())));
    let Some(Origin::Secret { key, directory, manifest: Some(_) }) = &pod.mounts[4].origin else {
        panic!("{:?}", pod.mounts[4]);
    };
    assert_eq!((key.as_str(), directory.as_deref()), ("tls.key", Some("/etc/tls")));
    assert!(!format!("{pod:?}").contains("a2V5"), "a secret's value has been read");
    for (from, to, expected) in [
        ("private/key.pem", "../key.pem", "is not below the volume"),
        ("key: tls.key", "key: other", "`tls` has no key `other`"),
        ("subPath: nested/one.conf", "subPath: one.conf", "has no file `one.conf`"),
        ("mode: 256", "mode: rwx", "are no permissions"),
    ] {
        let error = read(&FILES.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_secret_is_read_where_it_is_needed_only() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.yaml");
    std::fs::write(&file, FILES).unwrap();
    let manifest = |namespace: &str| Manifest { file: file.clone(), namespace: namespace.into() };
    let here = manifest("default");
    assert_eq!(secret::read(&here, "tls", "tls.key").unwrap(), b"key");
    assert_eq!(secret::read(&here, "tls", "note").unwrap(), b"plain");
    assert!(secret::read(&here, "tls", "other").unwrap_err().contains("has no key `other`"));
    assert!(secret::read(&manifest("b"), "tls", "note").unwrap_err().contains("no Secret `tls`"));
    std::fs::write(&file, FILES.replace("a2V5", "\"*?\"")).unwrap();
    let error = secret::read(&here, "tls", "tls.key").unwrap_err();
    assert!(error.contains("not in base64") && !error.contains("*?"), "{error}");
}

#[test]
fn services_lead_to_the_containers_that_serve() {
    let of = |service: &str| {
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {a: b}}, spec: {containers: \
                   [{name: c, image: i, ports: [{containerPort: 8080, name: http}]}, {name: d, image: i, \
                   ports: [{containerPort: 53, protocol: UDP}]}]}}\n---\n";
        let service = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{selector: {{a: b}}, \
             {service}}}}}"
        );
        // Labels of a bare Pod are its own.
        read(&format!("{pod}{service}")).unwrap()
    };
    let all = of("type: LoadBalancer, ports: [{port: 80, targetPort: http}]");
    let port = &all[0].ports[0];
    assert_eq!((port.guest, port.published, port.host), (8080, true, Some(80)));
    assert!(all[1].services.is_empty());
    let all = of("type: NodePort, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]");
    assert_eq!(all[0].ports[0].host, Some(30080));
    let all =
        of("ports: [{name: a, port: 80, targetPort: 8080}, {name: b, port: 53, protocol: UDP}]");
    assert_eq!((all[0].services[0].ports.len(), all[1].services[0].ports.len()), (1, 1));
    assert!(!all[0].ports[0].published);
    let all = of("clusterIP: None, ports: [{port: 8080}]");
    assert!(all[0].services[0].headless && !all[0].services[0].own_address);
    let all = of("ports: [{port: 81}]");
    let text = &all[0].notes.iter().find(|note| note.text.contains("Service")).unwrap().text;
    assert!(text.contains("leads to a port `81`"), "{text}");
}
