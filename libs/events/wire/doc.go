// Package wire holds the messages that agents, backend and CLI of kanade 0.43.45 exchange over NATS, field by field, and
// the names of the subjects they travel on. Our own agent speaks the same messages and adds to Command.
//
// It is not the language of the log: facts and their fold are in package events, manifests and schedules in package
// catalog.
//
// Reading. Each message has a Decode function; json.Unmarshal does the same. Readers forgive what they do not know and
// refuse what 0.43.45 refuses when it reads:
//
//   - an unknown key is ignored, except in what is marked strict (EmitConfig, CheckHint, Freeze);
//   - a required field must be there; an optional one may be absent or null; one with a default may be absent, not null;
//   - names match byte for byte, and a known one may be given once;
//   - a fraction or a negative number is refused where a whole number belongs, and so is an unknown enum word.
//
// An error names the field by its path (see [FieldError]). Nothing here panics on input.
//
// Writing. json.Marshal writes what is set, in the order of 0.43.45: optional fields that are not set are absent, times
// are UTC with Z and 0, 3, 6 or 9 digits of fraction. What was decoded is encoded without loss of a known field.
//
// In Go, an optional text is a string, empty meaning absent, wherever the empty text and none mean the same; optional
// numbers, booleans and times are pointers, nil meaning absent.
//
// Everything is a plain value or a pure function: safe for concurrent use as long as nobody writes to the same value.
package wire
