//! The gateway from outside: real sockets, a stand-in for the upstream, a clock that tests move.
//! One file per behaviour; each begins with the rule it holds the gateway to.

mod world;

mod standin;
