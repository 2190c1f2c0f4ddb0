use super::*;
use crate::clock::UnixMillis;

const OVER: Phase = Phase::Closed { since: UnixMillis(1) };

/// The uptime in milliseconds; the time of day stands still.
fn at(millis: u64) -> Moment {
    Moment { wall: UnixMillis(0), uptime: std::time::Duration::from_millis(millis) }
}

fn name(kind: IdKind) -> HashedId {
    HashedId::new(kind, "x-1")
}

fn sighting(names: &[HashedId], phase: Phase) -> [Sighting; 1] {
    [Sighting { names: names.to_vec(), phase, bots: Vec::new() }]
}

fn phase(seen: &Sightings, account: &str, kind: IdKind) -> Option<Phase> {
    seen.get(account, name(kind)).map(|known| known.phase)
}

#[test]
fn an_id_is_known_by_account_and_kind() {
    let seen = Sightings::new(10);
    let (ours, theirs): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    seen.note(&ours, &sighting(&[name(IdKind::Session)], OVER), at(5));
    assert_eq!(phase(&seen, &ours, IdKind::Session), Some(OVER));
    assert_eq!(phase(&seen, &ours, IdKind::Call), None);
    assert_eq!(phase(&seen, &theirs, IdKind::Session), None);
}

#[test]
fn the_word_asked_for_last_counts_whenever_it_comes() {
    let seen = Sightings::new(10);
    let account: Arc<str> = "a".into();
    let names = [name(IdKind::Session)];
    seen.note(&account, &sighting(&names, OVER), at(5));
    seen.note(&account, &sighting(&names, Phase::Live), at(7));
    seen.note(&account, &sighting(&names, OVER), at(6));
    assert_eq!(phase(&seen, &account, IdKind::Session), Some(Phase::Live));
    // Said in the same moment, it is over only if all that is said is.
    seen.note(&account, &sighting(&names, OVER), at(7));
    assert_eq!(phase(&seen, &account, IdKind::Session), Some(Phase::Live));
    seen.note(&account, &sighting(&names, OVER), at(8));
    assert_eq!(phase(&seen, &account, IdKind::Session), Some(OVER));
}

#[test]
fn names_told_by_different_routes_are_put_together() {
    let seen = Sightings::new(10);
    let account: Arc<str> = "a".into();
    let (session, call) = (name(IdKind::Session), name(IdKind::Call));
    seen.note(&account, &sighting(&[session, call], OVER), at(1));
    seen.note(&account, &sighting(&[session, name(IdKind::Conversation)], OVER), at(2));
    let names = seen.get(&account, session).expect("known").names;
    assert_eq!(names.len(), 3);
    assert!(names.contains(&call));
}

#[test]
fn what_is_named_alone_keeps_the_names_it_is_known_by() {
    let seen = Sightings::new(10);
    let account: Arc<str> = "a".into();
    let (session, call) = (name(IdKind::Session), name(IdKind::Call));
    seen.note(&account, &sighting(&[session], OVER), at(1));
    assert_eq!(seen.names(session), []);
    seen.note(&account, &sighting(&[session, call], OVER), at(2));
    seen.note(&account, &sighting(&[session], Phase::Live), at(3));
    assert_eq!(seen.names(session), [call]);
    assert_eq!(phase(&seen, &account, IdKind::Session), Some(Phase::Live));
    assert_eq!(phase(&seen, &account, IdKind::Call), Some(OVER));
}

#[test]
fn the_names_of_one_conversation_are_bounded() {
    let seen = Sightings::new(1000);
    let account: Arc<str> = "a".into();
    let session = name(IdKind::Session);
    for n in 0..100 {
        let call = HashedId::new(IdKind::Call, &format!("k-{n}"));
        seen.note(&account, &sighting(&[session, call], OVER), at(n));
    }
    assert_eq!(seen.names(session).len(), MOST_NAMES - 1);
}

#[test]
fn the_bots_of_a_conversation_add_up_and_hold_for_all_of_its_names() {
    let seen = Sightings::new(10);
    let account: Arc<str> = "a".into();
    let (session, other) = (name(IdKind::Session), HashedId::new(IdKind::Session, "x-2"));
    let note = |names: &[HashedId], bots: &[&str], millis| {
        let bots = bots.iter().map(|bot| Box::from(*bot)).collect();
        let sighting = Sighting { names: names.to_vec(), phase: OVER, bots };
        seen.note(&account, &[sighting], at(millis));
    };
    let bots = |names: &[HashedId]| seen.bots(&account, names).join(" ");
    note(&[session, name(IdKind::Conversation)], &["st-1"], 5);
    // Later in coming, earlier in asking; and one that says nothing of it.
    note(&[session], &["st-2"], 4);
    note(&[session], &[], 6);
    assert_eq!(bots(&[session]), "st-1 st-2");
    assert_eq!(bots(&[session, name(IdKind::Conversation)]), "st-1");
    assert_eq!(bots(&[session, name(IdKind::Call)]), "st-1 st-2", "of a name that is not known");
    assert!(seen.bots(&account, &[name(IdKind::Call)]).is_empty());
    assert!(seen.bots("b", &[session]).is_empty());
    note(&[other], &["st-9"], 5);
    assert_eq!(*seen.bots(&account, &[session, other]), [Box::from("")], "nobody's");
    note(&[session], &["st-3", "st-4", "st-5"], 7);
    assert_eq!(bots(&[session]), "st-1 st-2 st-3 st-4");
}

/// Who is not among the bots that are remembered may not see it; "nobody has said" would let it pass.
#[test]
fn a_bot_too_many_is_not_one_of_the_conversations_and_leaves_it_somebodys() {
    let seen = Sightings::new(1000);
    let account: Arc<str> = "a".into();
    let said = |name: HashedId, bots: Vec<Box<str>>| {
        seen.note(&account, &[Sighting { names: vec![name], phase: OVER, bots }], at(1));
    };
    let bots = |name| seen.bots(&account, &[name]);
    for n in 0..usize::from(NAMELESS) / 100 {
        let bots = (0..100).map(|m| format!("st-{n}-{m}").into()).collect();
        said(HashedId::new(IdKind::Session, &n.to_string()), bots);
    }
    assert_eq!(
        *bots(HashedId::new(IdKind::Session, "1")),
        ["st-1-0", "st-1-1", "st-1-2", "st-1-3"].map(Box::from)
    );
    said(name(IdKind::Call), (0..100).map(|n| format!("st-more-{n}").into()).collect());
    let late = name(IdKind::Session);
    said(late, vec!["st-late".into()]);
    assert_eq!(*bots(late), [Box::from("")]);
    // What is said of it in common with others is still known.
    said(late, vec!["st-1-0".into()]);
    assert_eq!(*bots(late), ["", "st-1-0"].map(Box::from));
    assert!(bots(name(IdKind::Conversation)).is_empty());
    assert_eq!(seen.table().bots.names.len(), usize::from(NAMELESS) - 1);
}

#[test]
fn what_was_named_longest_ago_is_forgotten_first_however_often_it_is_asked_for() {
    let seen = Sightings::new(2);
    let account: Arc<str> = "a".into();
    let [old, named_again, new] = ["x-1", "x-2", "x-3"].map(|id| HashedId::new(IdKind::Session, id));
    for name in [named_again, old, named_again] {
        seen.note(&account, &sighting(&[name], OVER), at(1));
    }
    assert!(seen.get(&account, old).is_some());
    seen.note(&account, &sighting(&[new], OVER), at(1));
    let known = [old, named_again, new].map(|name| seen.get(&account, name).is_some());
    assert_eq!(known, [false, true, true]);
}

#[test]
fn the_table_is_bounded() {
    let seen = Sightings::new(100);
    let account: Arc<str> = "a".into();
    for n in 0..10_000 {
        let names = [HashedId::new(IdKind::Conversation, &format!("c-{n}"))];
        seen.note(&account, &sighting(&names, Phase::Live), at(0));
    }
    assert_eq!(seen.table().known.len(), 100);
    // The newest push out the oldest.
    assert!(seen.get(&account, HashedId::new(IdKind::Conversation, "c-9999")).is_some());
    assert!(seen.get(&account, HashedId::new(IdKind::Conversation, "c-0")).is_none());
}
