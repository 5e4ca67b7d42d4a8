// Package rest is the HTTP of kanade: it reads requests, lets package journal write and the read model answer, and puts
// what comes back into the shapes of kanade 0.43.45 and their additions.
//
// What holds for every route:
//
//   - A path segment is matched raw and percent-decoded afterwards; nothing is cleaned or redirected. What matches no
//     route is 404, a wrong method 405 with Allow.
//   - Everything under /api/ but /api/version needs the token, 404s included.
//   - Errors are a sentence as text, or RFC 9457 problem+json for whoever accepts a JSON type.
//   - A write answers Kanade-Sequence, the LOG sequence of what it left. A read answers Kanade-Applied-Sequence and
//     Kanade-Applied-At, how far the read model is, and waits up to five seconds for the Kanade-Min-Sequence that it is
//     given. A script object is no fact of the log: its writes answer no sequence and its reads the store.
//     Dead letters are read from their stream; a retry answers the sequence of the message that it appended, with a key or
//     without one always the same.
//   - A read of the read model takes as_of, a LOG sequence or a time, and answers from a model of that moment, with its sequence
//     as Kanade-Applied-Sequence. One that is not there is asked for in the log and waited for. Everything else refuses as_of.
//   - A write takes an Idempotency-Key: the same request under the same key is done once and answered with what it left;
//     another one under that key is refused. Without a key, what is so already changes nothing.
//   - Lists are bare arrays; those that have pages say where the next one is by a link, and are also answered whole, as CSV or lines of
//     JSON (list.go, export.go). Times are RFC 3339 in UTC.
//
// One file a noun; server.go has the table of routes.
package rest
