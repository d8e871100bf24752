//! What server-side apply cannot mend. Pure.
//!
//! Ports are merged by their number. Where somebody changed the number of ours, an apply adds ours again
//! beside it, and the API server refuses two ports of one name. So the port that has our name is first moved
//! back under our number; the apply does the rest. Ports with other names are others' and stay.

use serde_json::{Value, json};

/// JSON patch operations that move ports back, or none where no port was moved.
pub fn moved_ports(wanted: &Value, live: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    walk(wanted, live, "", &mut operations);
    operations
}

fn walk(wanted: &Value, live: &Value, path: &str, operations: &mut Vec<Value>) {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            for (key, wanted) in wanted {
                let Some(live) = live.get(key) else { continue };
                let path = format!("{path}/{key}");
                match (wanted, live) {
                    (Value::Array(wanted), Value::Array(live)) if key == "ports" => {
                        ports(wanted, live, &path, operations);
                    }
                    _ => walk(wanted, live, &path, operations),
                }
            }
        }
        (Value::Array(wanted), Value::Array(live)) => {
            for wanted in wanted.iter().filter(|w| w.get("name").is_some()) {
                if let Some(index) = live.iter().position(|l| l.get("name") == wanted.get("name")) {
                    walk(wanted, &live[index], &format!("{path}/{index}"), operations);
                }
            }
        }
        _ => {}
    }
}

fn ports(wanted: &[Value], live: &[Value], path: &str, operations: &mut Vec<Value>) {
    for wanted in wanted {
        let named = |live: &&Value| live.get("name") == wanted.get("name");
        let Some(index) = live.iter().position(|l| named(&l)) else { continue };
        for key in ["port", "containerPort", "protocol"] {
            if let Some(value) = wanted.get(key)
                && live[index].get(key) != Some(value)
            {
                operations
                    .push(json!({"op": "add", "path": format!("{path}/{index}/{key}"), "value": value}));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_with_our_name_comes_back_under_our_number() {
        let wanted = json!({"spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}]}});
        let live = json!({"spec": {"ports": [{"name": "mine", "port": 9}, {"name": "http", "port": 81, "protocol": "UDP", "nodePort": 30001}]}});
        assert_eq!(
            moved_ports(&wanted, &live),
            [
                json!({"op": "add", "path": "/spec/ports/1/port", "value": 80}),
                json!({"op": "add", "path": "/spec/ports/1/protocol", "value": "TCP"})
            ]
        );
        assert_eq!(moved_ports(&wanted, &wanted), Vec::<Value>::new());
    }

    #[test]
    fn ports_of_the_right_container_are_moved() {
        let wanted =
            json!({"containers": [{"name": "server", "ports": [{"name": "http", "containerPort": 8080}]}]});
        let live = json!({"containers": [{"name": "mesh", "ports": [{"name": "http", "containerPort": 1}]}, {"name": "server", "ports": [{"name": "http", "containerPort": 2}]}]});
        let moved = json!({"op": "add", "path": "/containers/1/ports/0/containerPort", "value": 8080});
        assert_eq!(moved_ports(&wanted, &live), [moved]);
    }
}
