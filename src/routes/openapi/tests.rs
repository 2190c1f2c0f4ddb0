use super::*;

const LIMITS: RequestLimits = RequestLimits { conversation_details_limit: 100, max_json_depth: 32 };

#[test]
fn every_route_and_alias_has_its_operation_and_every_id_is_there_once() {
    let document = document(LIMITS, "0");
    let mut ids = Vec::new();
    for route in &ROUTES {
        for path in route.paths {
            let method = route.method.as_str().to_ascii_lowercase();
            let operation = &document["paths"][path][&method];
            assert!(operation["responses"]["200"].is_object(), "{path}");
            ids.push(operation["operationId"].as_str().expect("an id").to_owned());
        }
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn every_kind_of_error_has_its_type_and_every_reference_leads_somewhere() {
    let document = document(LIMITS, "0");
    let types = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].to_string();
    for kind in Kind::ALL {
        assert!(types.contains(kind.as_str()), "{kind:?}");
    }
    let text = document.to_string();
    let references = text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next());
    for reference in references {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}
