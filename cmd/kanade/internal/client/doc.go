// Package client speaks to kanade's HTTP API for the command line: one request and one answer ([Client.Do]), a list in
// pages ([Client.Pages]), and the stream of events, which survives disconnects ([Client.Follow]).
//
// It knows how requests are made (token, source, content types, sequences) and turns every failure into an error that a
// person can act on: [*Unreachable] when nobody answered, [*Refused] when the API said no. It decides nothing, keeps
// nothing on disk, and its methods may be called from any goroutine.
package client
