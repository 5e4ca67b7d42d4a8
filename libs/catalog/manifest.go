package catalog

import "github.com/go-json-experiment/json/jsontext"

// Manifest is a job: what runs, how, and what its output means. The order of the fields is the order in the stored
// document; fields marked omitzero are absent there when unset.
type Manifest struct {
	ID string `json:"id" is:"required"`
	// Version is free text, compared byte for byte; it may be empty.
	Version     string  `json:"version" is:"required"`
	Description *string `json:"description" is:"null"`
	Execute     Execute `json:"execute" is:"required"`
	// RequireApproval makes an exec wait until another operator approves it.
	RequireApproval bool       `json:"require_approval"`
	Inventory       *Inventory `json:"inventory" is:"null"`
	Emit            *Emit      `json:"emit" is:"null"`
	Check           *Check     `json:"check" is:"null"`
	Staleness       Staleness  `json:"staleness"`
	Client          *Client    `json:"client,omitzero" is:"null"`
	Tags            []string   `json:"tags,omitzero" is:"null"`
}

// Shell is the program that a script is handed to.
type Shell string

// The shells; agents of 0.43.45 know the first two.
const (
	PowerShell Shell = "powershell"
	Cmd        Shell = "cmd"
	Sh         Shell = "sh"
	Pwsh       Shell = "pwsh"
)

// RunAs is the identity that a script runs as.
type RunAs string

// The identities.
const (
	System    RunAs = "system"
	User      RunAs = "user"
	SystemGUI RunAs = "system_gui"
)

// Execute says how a job runs. Exactly one of Script, ScriptFile and ScriptObject is set.
type Execute struct {
	Shell Shell `json:"shell" is:"required"`
	// Script is the text itself; empty means unset.
	Script string `json:"script,omitzero" is:"null"`
	// ScriptFile is a path relative to the manifest; the CLI puts the text in its place ([Manifest.Inline]).
	ScriptFile *string `json:"script_file,omitzero" is:"null"`
	// ScriptObject is "<name>/<version>" in the store of scripts.
	ScriptObject *string `json:"script_object,omitzero" is:"null"`
	// Timeout is used in whole seconds, at least 1: TimeoutSecs.
	Timeout Duration `json:"timeout" is:"required"`
	RunAs   RunAs    `json:"run_as"`
	Cwd     string   `json:"cwd,omitzero" is:"null"`
	// Env is added to the environment of the script.
	Env   map[string]string `json:"env,omitzero" is:"null"`
	Args  []string          `json:"args,omitzero" is:"null"`
	Stdin *string           `json:"stdin,omitzero" is:"null"`
	// SuccessCodes are the exit codes that count as success; unset means 0 alone.
	SuccessCodes []int `json:"success_codes,omitzero" is:"null"`
	// Params are inputs given at exec: name to JSON Schema, of the draft 2020-12 unless it says another one; formats are
	// asserted, and a schema can't refer to others. A param whose schema has a default may be left out. The value stands in
	// the environment under the param's name: a text as it is, anything else as JSON; null leaves the variable unset.
	Params map[string]jsontext.Value `json:"params,omitzero" is:"null"`
}

// TimeoutSecs is the timeout in whole seconds, at least 1, as commands carry it.
func (e *Execute) TimeoutSecs() int64 {
	d, _ := e.Timeout.Parse()
	return max(int64(d.Seconds()), 1)
}

// Inventory says how facts are shown and stored: a result with exit 0 whose stdout is JSON replaces the facts of (PC, job).
type Inventory struct {
	Display        []Field   `json:"display" is:"required"`
	Summary        []Field   `json:"summary,omitzero" is:"null"`
	Explode        []Explode `json:"explode,omitzero" is:"null"`
	HistoryScalars []string  `json:"history_scalars,omitzero" is:"null"`
}

// Field is a fact as people see it. Type is a hint (number, bytes, timestamp, table); any word passes.
type Field struct {
	Field   string  `json:"field" is:"required"`
	Label   string  `json:"label" is:"required"`
	Type    *string `json:"type,omitzero" is:"null"`
	Columns []Field `json:"columns,omitzero" is:"null"`
}

// Explode makes a table of a list among the facts.
type Explode struct {
	Field        string   `json:"field" is:"required"`
	Table        string   `json:"table" is:"required"`
	PrimaryKey   []string `json:"primary_key" is:"required"`
	Columns      []Column `json:"columns" is:"required"`
	TrackHistory bool     `json:"track_history"`
}

// ColumnType is the type of a table's column; empty means text.
type ColumnType string

// Column is one column of an exploded table.
type Column struct {
	Field string     `json:"field" is:"required"`
	Type  ColumnType `json:"type,omitzero" is:"null"`
	Index bool       `json:"index"`
}

// EmitType is what the lines of stdout are.
type EmitType string

// Emit makes each stdout line an observability event.
type Emit struct {
	Type EmitType `json:"type" is:"required"`
	// WatermarkPath is a note to readers; nothing opens it.
	WatermarkPath *string `json:"watermark_path,omitzero" is:"null"`
}

// Check reads a verdict (ok, warn, fail, unknown) from the object on stdout.
type Check struct {
	Name         string  `json:"name" is:"required"`
	StatusField  string  `json:"status_field"`
	DetailField  string  `json:"detail_field"`
	Troubleshoot *string `json:"troubleshoot,omitzero" is:"null"`
	// Fleet false keeps the verdict on the endpoint.
	Fleet bool `json:"fleet"`
}

// StalenessMode says how old an endpoint's knowledge may be when it runs a command.
type StalenessMode string

// The modes.
const (
	Cached    StalenessMode = "cached"
	Strict    StalenessMode = "strict"
	Unchecked StalenessMode = "unchecked"
)

// Staleness is always present; MaxCacheAge belongs to Strict alone.
type Staleness struct {
	Mode        StalenessMode `json:"mode" is:"required"`
	MaxCacheAge *Duration     `json:"max_cache_age,omitzero" is:"null"`
}

// Category is where the client app shows a job.
type Category string

// Client offers the job to the user of the endpoint.
type Client struct {
	Name        string   `json:"name" is:"required"`
	Description *string  `json:"description,omitzero" is:"null"`
	Category    Category `json:"category" is:"required"`
	Icon        *string  `json:"icon,omitzero" is:"null"`
}

func (Shell) words() []string         { return []string{"powershell", "cmd", "sh", "pwsh"} }
func (RunAs) words() []string         { return []string{"system", "user", "system_gui"} }
func (ColumnType) words() []string    { return []string{"text", "integer", "real"} }
func (EmitType) words() []string      { return []string{"events"} }
func (StalenessMode) words() []string { return []string{"cached", "strict", "unchecked"} }
func (Category) words() []string      { return []string{"software_update", "troubleshoot", "catalog"} }

func (m *Manifest) defaults() { m.Staleness.Mode = Cached }
func (e *Execute) defaults()  { e.RunAs = System }
func (c *Check) defaults() {
	c.StatusField, c.DetailField, c.Fleet = "status", "detail", true
}
