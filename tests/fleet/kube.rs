//! `dock2uni fleet up` of Kubernetes manifests: Services, ConfigMaps and Secrets, in VMs.

use crate::common::vm::can_boot;
use crate::up::Place;

const MANIFESTS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, namespace: shop}
data:
  MODE: fast
  ask.sh: |
    #!/bin/sh
    cat /etc/keys/token; echo
    echo "$PASSWORD in $MODE mode"
    for name in echo echo.shop.svc.cluster.local echo-direct; do
      port=80
      [ $name != echo-direct ] || port=8080
      until wget -q -O - http://$name:$port/name; do sleep 1; done
    done
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: shop}
data: {token: dG9rZW4tdmFsdWU=}
stringData: {password: pass-value}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: shop}
spec: {selector: {app: echo}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: echo-direct, namespace: shop}
spec: {clusterIP: None, selector: {app: echo}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo, namespace: shop}
spec:
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers:
      - name: main
        image: IMAGE(busybox)
        command: [sh, -c, "mkdir /www; hostname > /www/name; httpd -f -p 8080 -h /www"]
        ports: [{name: http, containerPort: 8080}]
        resources: {limits: {memory: 64Mi}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: ask, namespace: shop}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: IMAGE(busybox)
        command: [/etc/conf/ask.sh]
        env:
        - name: PASSWORD
          valueFrom: {secretKeyRef: {name: keys, key: password}}
        - name: MODE
          valueFrom: {configMapKeyRef: {name: conf, key: MODE}}
        resources: {limits: {memory: 64Mi}}
        volumeMounts:
        - {name: conf, mountPath: /etc/conf}
        - {name: keys, mountPath: /etc/keys}
      volumes:
      - {name: conf, configMap: {name: conf, defaultMode: 0755, items: [{key: ask.sh, path: ask.sh}]}}
      - {name: keys, secret: {secretName: keys, items: [{key: token, path: token}]}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tidy, namespace: shop}
spec:
  schedule: "0 3 * * *"
  jobTemplate: {spec: {template: {spec: {containers: [{name: t, image: IMAGE(busybox)}]}}}}
"#;

#[test]
fn services_config_maps_and_secrets_are_there() {
    if !can_boot() {
        return;
    }
    let place = Place::with(&["busybox"], "shop.yaml", MANIFESTS);
    let output = place.fleet(&["up", "-d", "--accel", "tcg", "shop.yaml"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}\n{}", place.logs());
    assert!(
        errors.contains("shop/cronjob/tidy/t: left out: it is started by a schedule"),
        "{errors}"
    );
    let ask = place.wait("ask-1", |ask| ask["phase"] == "exited");
    assert_eq!(ask["exit"], 0, "{ask:#}\n{}", place.logs());
    let logs = place.good(&["logs", "ask"]);
    for (text, count) in [("token-value", 1), ("pass-value in fast mode", 1), ("echo-1", 3)] {
        assert_eq!(logs.matches(&format!("| {text}\n")).count(), count, "{text}: {logs}");
    }
    place.good(&["down"]);
}
