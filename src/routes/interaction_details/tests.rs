use super::*;

const HOUR: i64 = 3_600_000;

fn phase_of(rows: &str) -> Phase {
    let asked = Requested::Window { start: UnixMillis(0), end: UnixMillis(10 * HOUR), offset_minutes: -60 };
    let body = format!(r#"{{"numResults":1,"data":[{rows}]}}"#);
    read(&asked, body.as_bytes()).expect("the right shape").phase
}

#[test]
fn an_empty_window_is_over_since_its_end() {
    assert_eq!(phase_of(""), Phase::Closed { since: UnixMillis(10 * HOUR) });
}

#[test]
fn one_live_row_makes_the_window_live() {
    let over = r#"{"finalStatus":"Dropped"}"#;
    for live in [
        r#"{"finalStatus":"TRANSIENT_OPEN","sessionEndTime":"1970-01-01T01:00:00"}"#,
        r#"{"finalStatus":"NEW"}"#,
        "{}",
    ] {
        assert_eq!(phase_of(&format!("{over},{live},{over}")), Phase::Live, "{live}");
    }
}

#[test]
fn a_row_that_ends_after_the_window_moves_its_end_in_the_zone_asked_for() {
    let late = r#"{"finalStatus":"CLOSED","sessionEndTime":"1970-01-01T13:00:00"}"#;
    assert_eq!(phase_of(late), Phase::Closed { since: UnixMillis(12 * HOUR) });
    let early = r#"{"finalStatus":"CLOSED","sessionEndTime":"1970-01-01T03:00:00"}"#;
    assert_eq!(phase_of(early), Phase::Closed { since: UnixMillis(10 * HOUR) });
    assert_eq!(phase_of(r#"{"finalStatus":"CLOSED","sessionEndTime":"soon"}"#), Phase::Unknown);
}

#[test]
fn each_row_leaves_a_sighting_under_its_session_and_its_conversation() {
    let asked = Requested::Window { start: UnixMillis(0), end: UnixMillis(0), offset_minutes: 0 };
    let body = br#"{"numResults":2,"data":[
        {"sessionId":"s1","conversationId":"c-1","botId":"st-1","automationBotIDs":["st-2",7],"finalStatus":"CLOSED","sessionEndTime":"1970-01-01T00:00:01"},
        {"sessionId":"s2","automationBotIDs":{},"finalStatus":"TRANSIENT_OPEN"}]}"#;
    let sightings = read(&asked, body).expect("the right shape").sightings;
    let over = Phase::Closed { since: UnixMillis(1000) };
    let name = sightings::HashedId::new;
    let first = vec![name(IdKind::Session, "s1"), name(IdKind::Conversation, "c-1")];
    let second = vec![name(IdKind::Session, "s2")];
    assert_eq!(
        sightings,
        [
            Sighting { names: first, phase: over, bots: vec!["st-1".into(), "st-2".into()] },
            Sighting { names: second, phase: Phase::Live, bots: Vec::new() }
        ]
    );
}

#[test]
fn a_row_that_names_nothing_proves_nothing() {
    let asked = Requested::Window { start: UnixMillis(0), end: UnixMillis(0), offset_minutes: 0 };
    let identity = |row: &str| {
        let body = format!(r#"{{"numResults":1,"data":[{row}]}}"#);
        read(&asked, body.as_bytes()).expect("the right shape").identity
    };
    assert_eq!(identity(r#"{"sessionId":"s1"}"#), IdentityProof::Proven);
    for row in ["{}", r#"{"row":{"sessionId":"s1"}}"#, r#"{"payload":"…"}"#] {
        assert_eq!(identity(row), IdentityProof::Unproven, "{row}");
    }
}

#[test]
fn a_row_that_lies_wholly_outside_the_window_does_not_belong_to_it() {
    let identity = |from: &str, to: &str| {
        let asked =
            Requested::Window { start: UnixMillis(HOUR), end: UnixMillis(2 * HOUR), offset_minutes: 0 };
        let row = format!(
            r#"{{"sessionId":"s1","sessionStartTime":"1970-01-01T{from}","sessionEndTime":"1970-01-01T{to}"}}"#
        );
        let body = format!(r#"{{"numResults":1,"data":[{row}]}}"#);
        read(&asked, body.as_bytes()).expect("the right shape").identity
    };
    assert_eq!(identity("01:10:00", "01:20:00"), IdentityProof::Proven);
    assert_eq!(identity("00:50:00", "01:00:00"), IdentityProof::Proven);
    assert_eq!(identity("02:00:00", "02:30:00"), IdentityProof::Proven);
    assert_eq!(identity("00:10:00", "00:20:00"), IdentityProof::Unproven);
    assert_eq!(identity("02:00:01", "02:20:00"), IdentityProof::Unproven);
}

#[test]
fn an_error_or_a_page_under_200_is_no_window() {
    let asked = Requested::Window { start: UnixMillis(0), end: UnixMillis(0), offset_minutes: 0 };
    for body in [
        r#"{"errors":[]}"#,
        r#"{"data":[]}"#,
        r#"{"numResults":0,"data":"x"}"#,
        r#"{"numResults":0,"data":[[]]}"#,
        "[[],0]",
        "<p>",
    ] {
        assert_eq!(read(&asked, body.as_bytes()), Err(Misfit::Shape), "{body}");
    }
    assert_eq!(read(&asked, br#"{"numResults":0,"data":["#), Err(Misfit::Cut));
}
