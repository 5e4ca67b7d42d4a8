package wire

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"
)

func minimal() Command {
	return Command{ID: "j", Version: "1", RequestID: "r", Shell: ShellCmd, Script: "echo", TimeoutSecs: 5}
}

func TestAbsentFieldsOfACommandHaveDefaults(t *testing.T) {
	c, err := DecodeCommand([]byte(`{"id":"j","version":"1","request_id":"r","shell":"cmd","script":"echo","timeout_secs":5,"check":{"name":"c"}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := minimal()
	want.RunAs, want.Staleness = RunAsSystem, Staleness{Mode: StalenessCached}
	want.Check = &CheckHint{Name: "c", StatusField: "status", DetailField: "detail", Fleet: true}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v", c)
	}
}

func TestWhatIsNotSetIsNotWritten(t *testing.T) {
	data, err := json.Marshal(minimal())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"j","version":"1","request_id":"r","shell":"cmd","script":"echo","timeout_secs":5}`
	if string(data) != want {
		t.Errorf("%s", data)
	}
}

func TestTheOldNameOfExecIDIsRead(t *testing.T) {
	c, err := DecodeCommand([]byte(`{"id":"j","version":"1","request_id":"r","job_id":"e","shell":"cmd","script":"","timeout_secs":5}`))
	if err != nil || c.ExecID != "e" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestAStalenessWithoutModeIsWrittenAsCached(t *testing.T) {
	data, err := json.Marshal(Staleness{})
	if err != nil || string(data) != `{"mode":"cached"}` {
		t.Errorf("%s, %v", data, err)
	}
}

func TestValidateNamesWhatReadersRefuse(t *testing.T) {
	for field, change := range map[string]func(*Command){
		"":                        func(*Command) {},
		"shell":                   func(c *Command) { c.Shell = "bash" },
		"run_as":                  func(c *Command) { c.RunAs = "root" },
		"script_object_sha256":    func(c *Command) { c.ScriptObject = "a/1" },
		"staleness.mode":          func(c *Command) { c.Staleness.Mode = "never" },
		"staleness.max_cache_age": func(c *Command) { c.Staleness.Mode = StalenessStrict },
		"emit.type":               func(c *Command) { c.Emit = &EmitConfig{} },
		"retry.max":               func(c *Command) { c.Retry = &RetrySpec{} },
	} {
		c := minimal()
		change(&c)
		checkField(t, "validate "+field, c.Validate(), field)
	}
	c := minimal()
	c.DeadlineAt = new(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))
	if err := c.Validate(); err == nil {
		t.Error("the year 10000 is written")
	}
}

func TestAdditionsAreNamed(t *testing.T) {
	c := minimal()
	c.Shell, c.Env, c.Args, c.Stdin, c.SuccessCodes = ShellSh, map[string]string{"A": "b"}, []string{"x"}, "in", []int{}
	if got := c.Additions(); !reflect.DeepEqual(got, []string{"shell", "env", "args", "stdin", "success_codes"}) {
		t.Errorf("%v", got)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestAnEmptyListOfSuccessCodesIsNotTheDefault(t *testing.T) {
	c := minimal()
	c.SuccessCodes = []int{}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodeCommand(data)
	if err != nil || again.SuccessCodes == nil {
		t.Errorf("%s, %v", data, err)
	}
}

func TestSecondsFitADuration(t *testing.T) {
	for secs, want := range map[uint64]time.Duration{
		0: time.Second, 1: time.Second, 90: 90 * time.Second, math.MaxUint64: math.MaxInt64 / time.Second * time.Second,
	} {
		if got := (Command{TimeoutSecs: secs}).Timeout(); got != want {
			t.Errorf("timeout_secs %d: %v", secs, got)
		}
	}
	if got := (RetrySpec{BackoffSecs: 0}).Backoff(); got != 0 {
		t.Errorf("no back-off: %v", got)
	}
}
