package wire

import (
	"encoding/json"
	"math"
	"time"
)

// Command tells endpoints to run a script. Subjects commands.all, commands.group.<group>, commands.pc.<pc_id>, to agents.
//
// An agent of 0.43.45 that can't read a command says so on its own disk only: Validate before sending, and look at
// Additions before sending to such an agent.
type Command struct {
	// ID is the job's, or AdHocJobID.
	ID string `json:"id"`
	// Version of the job; compared byte for byte with the bucket script_current before the run.
	Version string `json:"version"`
	// RequestID is a UUID, the key by which agents drop duplicates.
	RequestID string `json:"request_id"`
	// ExecID is a UUID; empty for an ad-hoc run. Its old name on the wire is job_id; never both.
	ExecID string `json:"exec_id,omitzero" alias:"job_id"`
	Shell  Shell  `json:"shell"`
	// Script is the text to run; empty when ScriptObject names it.
	Script string `json:"script"`
	// ScriptObject is "<name>/<version>" in the object store scripts.
	ScriptObject string `json:"script_object,omitzero"`
	// ScriptObjectSHA256 is the object's digest in lower-case hex (see HexDigest); needed with ScriptObject.
	ScriptObjectSHA256 string `json:"script_object_sha256,omitzero"`
	// TimeoutSecs is in seconds; at least 1 is used. See Timeout.
	TimeoutSecs uint64 `json:"timeout_secs"`
	// JitterSecs: agents sleep whole seconds, uniform in 0 to JitterSecs-1, before the run. Nil and 0 are none.
	JitterSecs *uint64 `json:"jitter_secs,omitzero"`
	// RunAs is system when absent.
	RunAs RunAs `json:"run_as,omitzero" wire:"default"`
	// CWD is the working directory; empty leaves it to the agent.
	CWD string `json:"cwd,omitzero"`
	// DeadlineAt is the last instant to start, by the agent's clock.
	DeadlineAt *time.Time `json:"deadline_at,omitzero"`
	// Staleness is cached when absent.
	Staleness Staleness   `json:"staleness,omitzero" wire:"default"`
	Emit      *EmitConfig `json:"emit,omitzero"`
	Check     *CheckHint  `json:"check,omitzero"`
	Retry     *RetrySpec  `json:"retry,omitzero"`

	// What follows are our additions. An agent of 0.43.45 ignores them and runs the script without.

	// Env is added to the environment of the script.
	Env map[string]string `json:"env,omitzero"`
	// Args are the script's arguments.
	Args []string `json:"args,omitzero"`
	// Stdin is what the script reads from its standard input.
	Stdin string `json:"stdin,omitzero"`
	// SuccessCodes are the exit codes that mean success; nil is 0 alone.
	SuccessCodes []int `json:"success_codes,omitzero"`
}

// What an ad-hoc run (kanade run) is called: it belongs to no job and to no exec.
const (
	AdHocJobID   = "adhoc-run"
	AdHocVersion = "0.0.0"
)

// Shell is what runs the script.
type Shell string

// The shells. 0.43.45 knows the first two.
const (
	ShellPowerShell Shell = "powershell"
	ShellCmd        Shell = "cmd"
	ShellSh         Shell = "sh"
	ShellPwsh       Shell = "pwsh"
)

// RunAs is the identity and session that a script runs in.
type RunAs string

// The identities. Off Windows, 0.43.45 answers user and system_gui with exit 0 without running anything.
const (
	RunAsSystem    RunAs = "system"
	RunAsUser      RunAs = "user"
	RunAsSystemGUI RunAs = "system_gui"
)

// DecodeCommand reads a Command. Errors wrap *FieldError.
func DecodeCommand(data []byte) (Command, error) { return decode[Command]("command", data) }

// UnmarshalJSON is DecodeCommand.
func (c *Command) UnmarshalJSON(data []byte) (err error) { *c, err = DecodeCommand(data); return err }

// MarshalJSON writes the wire's form.
func (c Command) MarshalJSON() ([]byte, error) { return encode(c) }

func (c *Command) setDefaults() {
	c.RunAs = RunAsSystem
	c.Staleness.setDefaults()
}

func (c *Command) check() error {
	switch c.Shell {
	case ShellPowerShell, ShellCmd, ShellSh, ShellPwsh:
	default:
		return &FieldError{"shell", "must be powershell, cmd, sh or pwsh, not " + quote(string(c.Shell))}
	}
	switch c.RunAs {
	case RunAsSystem, RunAsUser, RunAsSystemGUI:
	default:
		return &FieldError{"run_as", "must be system, user or system_gui, not " + quote(string(c.RunAs))}
	}
	if c.ScriptObject != "" && c.ScriptObjectSHA256 == "" {
		return &FieldError{"script_object_sha256", "is missing beside script_object"}
	}
	return nil
}

// Validate says what a reader would refuse. Errors wrap *FieldError.
func (c Command) Validate() error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = DecodeCommand(data)
	return err
}

// Additions names the fields that an agent of 0.43.45 can't carry out: it drops a command with a shell it does not know
// without any report, and ignores the rest. Empty means that any agent may have the command.
func (c Command) Additions() []string {
	var names []string
	add := func(name string, set bool) {
		if set {
			names = append(names, name)
		}
	}
	add("shell", c.Shell == ShellSh || c.Shell == ShellPwsh)
	add("env", len(c.Env) > 0)
	add("args", len(c.Args) > 0)
	add("stdin", c.Stdin != "")
	add("success_codes", c.SuccessCodes != nil)
	return names
}

// Timeout is how long one attempt may run: at least 1 s, at most what a Duration holds.
func (c Command) Timeout() time.Duration { return seconds(max(c.TimeoutSecs, 1)) }

// seconds is n seconds, at most what a Duration holds.
func seconds(n uint64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/uint64(time.Second))) * time.Second
}

// quote shortens a refused word for an error.
func quote(word string) string {
	raw, err := json.Marshal(word)
	if err != nil {
		return "that"
	}
	return describe(raw)
}
