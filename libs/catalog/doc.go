// Package catalog knows what operators write: job manifests, schedules and plans. It parses them strictly, checks every
// rule that a document can break by itself, says which of its keys are not carried out yet, and computes when a schedule
// is due.
//
// A document passes four gates, in this order, each naming the dotted path of what it refuses:
//
//  1. text: YAML or JSON that can be read at all ([Malformed]);
//  2. shape: known keys, each given once, of the right type, none missing ([Shape]);
//  3. rules: what behaviour says of the values ([Invalid]);
//  4. support: keys that are understood but not carried out yet ([Unsupported]), so that nothing is stored in silence.
//
// ParseManifest, ParseSchedule and ParsePlan are the first three; the methods named Unsupported are the fourth, and
// belong to the border where a document is accepted. What was accepted once is read again with ParseManifestDocument and
// ParseScheduleDocument, which forgive what a later version may have added.
//
// # Params
//
// A job declares its inputs as execute.params, name to JSON Schema (draft 2020-12 unless the schema says another one; no
// references to other documents; formats are asserted). A manifest whose schemas can't be used, or whose defaults do not
// keep them, is refused when it is read. An exec gives values in its plan. A param without a default must be given, a
// value that no param has is refused, and each value must keep its schema. The script finds them in its environment,
// under their names as written: a text as it is, everything else as JSON in one line; null leaves the variable unset.
// execute.env and other params may not name the same variable in whatever letter case, as Windows can't tell them apart.
// [Manifest.Resolve] does this when the exec is requested, so that a job that changes afterwards changes nothing.
//
// Everything here is a pure function of its arguments: no clock, no network, no files but the zone database, nothing
// shared between calls, so all of it may be called from any goroutine. Nothing here panics on input.
package catalog
