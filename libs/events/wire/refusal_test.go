package wire

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

// complete is a message of each kind with every field set.
func complete() map[string]string {
	return map[string]string{
		"command": `{"id":"j","version":"1","request_id":"r","exec_id":"e","shell":"cmd","script":"","script_object":"a/1",
			"script_object_sha256":"00","timeout_secs":30,"jitter_secs":0,"run_as":"user","cwd":"/","deadline_at":"2026-11-23T10:00:00Z",
			"staleness":{"mode":"strict","max_cache_age":"5m"},"emit":{"type":"events","watermark_path":"w"},
			"check":{"name":"c","status_field":"s","detail_field":"d","troubleshoot":"t","fleet":false},
			"retry":{"max":1,"backoff_secs":0},"env":{"A":"b"},"args":["x"],"stdin":"in","success_codes":[0,-1]}`,
		"result": `{"result_id":"i","request_id":"r","exec_id":"e","pc_id":"p","exit_code":-1,"stdout":"o","stderr":"e",
			"started_at":"2026-11-23T10:00:00.1Z","finished_at":"2026-11-23T11:00:00+01:00","stdout_object":"a","stderr_object":"b","manifest_id":"j"}`,
		"started": `{"result_id":"i","request_id":"r","exec_id":"e","pc_id":"p","started_at":"2026-11-23T10:00:00Z","manifest_id":"j","version":"1"}`,
		"heartbeat": `{"pc_id":"p","at":"2026-11-23T10:00:00Z","agent_version":"0.43.45","hostname":"h","os_family":"linux",
			"agent_cpu_pct":0.0,"agent_rss_bytes":0,"agent_disk_read_bytes":0,"agent_disk_written_bytes":18446744073709551615}`,
		"host_perf": `{"pc_id":"p","at":"2026-11-23T10:00:00Z","cpu_pct":0.5,"cpu_count":4294967295,"mem_used_bytes":1,"mem_total_bytes":2,
			"swap_used_bytes":3,"swap_total_bytes":4,"disk_read_bytes_per_sec":0.0,"disk_written_bytes_per_sec":1500.0,
			"net_rx_bytes_per_sec":1,"net_tx_bytes_per_sec":2e3}`,
		"process_perf": `{"pc_id":"p","at":"2026-11-23T10:00:00Z","processes":[{"pid":1,"name":"init","cpu_pct":0.1,"rss_bytes":2,
			"disk_read_bytes_per_sec":0.0,"disk_written_bytes_per_sec":0.0}]}`,
		"obs":              `{"pc_id":"p","at":"2026-11-23T10:00:00Z","kind":"k","source":"s","event_record_id":"","payload":[1.10,null,{"a":"<b>"}]}`,
		"audit":            `{"actor":"a","action":"b","target":"t","payload":{"sub":"s","n":null},"occurred_at":"2026-11-23T10:00:00Z"}`,
		"agent_groups":     `{"groups":["a","b"]}`,
		"freeze":           `{"from":"2026-01-01","until":"2026-12-31","reason":"r","tz":"utc"}`,
		"job_tail_request": `{"result_id":"i"}`,
		"job_tail_reply":   `{"found":true,"running":false,"stdout":"a","stderr":"b","stdout_truncated":true,"stderr_truncated":false}`,
		"logs_request":     `{"tail_lines":0}`,
		"config_scope": `{"target_version":"1","target_version_jitter":"1m","heartbeat_interval":"1s","host_perf_interval":"2s",
			"process_perf_enabled":false,"process_perf_expires_at":"2026-11-23T10:00:00Z","process_perf_top_n":0}`,
	}
}

// requirements say of every field what it is: "!" must be there, "d" may be absent but not null, "?" may be absent or null.
func requirements() map[string]string {
	return map[string]string{
		"command": `id! version! request_id! exec_id? shell! script! script_object? timeout_secs! jitter_secs? run_asd cwd? deadline_at?
			stalenessd emit? check? retry? env? args? stdin? success_codes?`,
		"result": `result_idd request_id! exec_id? pc_id! exit_code! stdout! stderr! started_at! finished_at! stdout_object? stderr_object?
			manifest_id?`,
		"started": `result_id! request_id! exec_id! pc_id! started_at! manifest_id! version!`,
		"heartbeat": `pc_id! at! agent_version! hostname? os_family? agent_cpu_pct? agent_rss_bytes? agent_disk_read_bytes?
			agent_disk_written_bytes?`,
		"host_perf": `pc_id! at! cpu_pct? cpu_count? mem_used_bytes? mem_total_bytes? swap_used_bytes? swap_total_bytes?
			disk_read_bytes_per_sec? disk_written_bytes_per_sec? net_rx_bytes_per_sec? net_tx_bytes_per_sec?`,
		"process_perf":     `pc_id! at! processes!`,
		"obs":              `pc_id! at! kind! source! event_record_id?`,
		"audit":            `actor! action! target? occurred_at!`,
		"agent_groups":     `groups!`,
		"freeze":           `from? until? reason? tzd`,
		"job_tail_request": `result_id!`,
		"job_tail_reply":   `found! running! stdout! stderr! stdout_truncated! stderr_truncated!`,
		"logs_request":     `tail_linesd`,
		"config_scope": `target_version? target_version_jitter? heartbeat_interval? host_perf_interval? process_perf_enabled?
			process_perf_expires_at? process_perf_top_n?`,
	}
}

func members(t *testing.T, data string) map[string]json.RawMessage {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(data), &m); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return m
}

// with is the message with one member replaced, or left out when value is empty.
func with(t *testing.T, m map[string]json.RawMessage, name, value string) []byte {
	t.Helper()
	m = maps.Clone(m)
	delete(m, name)
	if value != "" {
		m[name] = json.RawMessage(value)
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkField fails unless err is a refusal of the field, or nil when field is empty.
func checkField(t *testing.T, what string, err error, field string) {
	t.Helper()
	var f *FieldError
	switch {
	case field == "" && err != nil:
		t.Errorf("%s: refused: %v", what, err)
	case field != "" && !errors.As(err, &f):
		t.Errorf("%s: want a refusal of %s, got %v", what, field, err)
	case field != "" && f.Field != field:
		t.Errorf("%s: want a refusal of %s, got %v", what, field, err)
	}
}

func TestWhatMayBeAbsentOrNull(t *testing.T) {
	kinds := messages()
	for kind, list := range requirements() {
		m := members(t, complete()[kind])
		for _, entry := range strings.Fields(list) {
			name, rule := entry[:len(entry)-1], entry[len(entry)-1]
			if m[name] == nil {
				t.Fatalf("the complete %s has no %s", kind, name)
			}
			refusedIf := func(refused bool) string {
				if refused {
					return name
				}
				return ""
			}
			_, err := kinds[kind].decode(with(t, m, name, ""))
			checkField(t, kind+" without "+name, err, refusedIf(rule == '!'))
			_, err = kinds[kind].decode(with(t, m, name, "null"))
			checkField(t, kind+" with null as "+name, err, refusedIf(rule != '?'))
		}
	}
}

func TestWrongTypesAreRefusedByName(t *testing.T) {
	kinds := messages()
	for kind, text := range complete() {
		m := members(t, text)
		for name, value := range m {
			if name == "payload" {
				continue
			}
			wrong := []string{`{}`, `[{}]`, `true`, `"x"`, `1.5`, `-1.5`, `1e3`}
			switch {
			case value[0] == '"':
				wrong = []string{`{}`, `[]`, `true`, `1`}
			case value[0] == '{':
				wrong = []string{`[]`, `true`, `"x"`, `1`}
			case value[0] == 't' || value[0] == 'f':
				wrong = []string{`{}`, `[]`, `"true"`, `1`}
			case value[0] == '[':
				wrong = []string{`{}`, `"x"`, `1`, `true`}
			case strings.Contains(name, "pct") || strings.Contains(name, "per_sec"):
				wrong = []string{`{}`, `[]`, `true`, `"1"`, `1e999`}
			case name != "exit_code":
				wrong = append(wrong, `-1`, `18446744073709551616`)
			default:
				wrong = append(wrong, `2147483648`, `-2147483649`)
			}
			for _, w := range wrong {
				_, err := kinds[kind].decode(with(t, m, name, w))
				checkField(t, kind+" with "+name+" "+w, err, within(name, err))
			}
		}
	}
}

// within is the field that a refusal of a list or object names: what is in it, or itself.
func within(name string, err error) string {
	var f *FieldError
	if errors.As(err, &f) && (strings.HasPrefix(f.Field, name+".") || strings.HasPrefix(f.Field, name+"[")) {
		return f.Field
	}
	return name
}

func TestRefusals(t *testing.T) {
	kinds := messages()
	for _, c := range []struct {
		kind, name, value, field string
	}{
		{"command", "shell", `"bash"`, "shell"},
		{"command", "shell", `"Cmd"`, "shell"},
		{"command", "shell", `"pwsh"`, ""},
		{"command", "run_as", `"root"`, "run_as"},
		{"command", "run_as", `"system_gui"`, ""},
		{"command", "script_object_sha256", ``, "script_object_sha256"},
		{"command", "job_id", `"e"`, "job_id"},
		{"command", "job_id", `null`, "job_id"},
		{"command", "unknown", `{"a":1}`, ""},
		{"command", "ID", `"other"`, ""},
		{"command", "timeout_secs", `0`, ""},
		{"command", "staleness", `{"mode":"never"}`, "staleness.mode"},
		{"command", "staleness", `{"mode":"strict"}`, "staleness.max_cache_age"},
		{"command", "staleness", `{}`, "staleness.mode"},
		{"command", "staleness", `{"mode":"cached","more":1}`, ""},
		{"command", "emit", `{"type":"logs"}`, "emit.type"},
		{"command", "emit", `{"type":"events","more":1}`, "emit.more"},
		{"command", "check", `{"name":"c"}`, ""},
		{"command", "check", `{"name":"c","fleet":null}`, "check.fleet"},
		{"command", "check", `{"name":"c","more":1}`, "check.more"},
		{"command", "check", `{}`, "check.name"},
		{"command", "retry", `{"max":0,"backoff_secs":1}`, "retry.max"},
		{"command", "retry", `{"max":11,"backoff_secs":1}`, "retry.max"},
		{"command", "retry", `{"max":10,"backoff_secs":1.0}`, "retry.backoff_secs"},
		{"command", "retry", `{"max":10}`, "retry.backoff_secs"},
		{"command", "env", `{"A":1}`, "env.A"},
		{"command", "env", `{"A":null}`, "env.A"},
		{"command", "args", `["a",null]`, "args[1]"},
		{"command", "success_codes", `[0,1.5]`, "success_codes[1]"},
		{"command", "deadline_at", `"tomorrow"`, "deadline_at"},
		{"command", "deadline_at", `"2026-11-23"`, "deadline_at"},
		{"command", "deadline_at", `"2026-11-23T10:00:00"`, "deadline_at"},
		{"command", "deadline_at", `"0000-01-01T00:00:00+01:00"`, "deadline_at"},
		{"result", "exit_code", `-2147483648`, ""},
		{"result", "result_id", `""`, ""},
		{"result", "started_at", `"2026-11-23T10:00:00.123456789+09:00"`, ""},
		{"result", "collect_object", `"newer"`, ""},
		{"process_perf", "processes", `[]`, ""},
		{"process_perf", "processes", `[{"pid":1,"name":"a","cpu_pct":1,"rss_bytes":1},{"pid":-1,"name":"a","cpu_pct":1,"rss_bytes":1}]`, "processes[1].pid"},
		{"process_perf", "processes", `[{"pid":1,"name":"a","cpu_pct":1}]`, "processes[0].rss_bytes"},
		{"process_perf", "processes", `[null]`, "processes[0]"},
		{"obs", "payload", ``, ""},
		{"obs", "payload", `null`, ""},
		{"obs", "payload", `"text"`, ""},
		{"audit", "payload", ``, "payload"},
		{"audit", "payload", `null`, ""},
		{"agent_groups", "groups", `["a",1]`, "groups[1]"},
		{"freeze", "tz", `"Asia/Tokyo"`, "tz"},
		{"freeze", "tz", `"UTC"`, "tz"},
		{"freeze", "more", `null`, "more"},
		{"config_scope", "more", `1`, ""},
	} {
		m := members(t, complete()[c.kind])
		_, err := kinds[c.kind].decode(with(t, m, c.name, c.value))
		checkField(t, c.kind+" with "+c.name+" "+c.value, err, c.field)
	}
}

func TestNoMessageIsReadFromAnythingButOneObject(t *testing.T) {
	for kind, m := range messages() {
		whole := complete()[kind]
		for _, data := range []string{
			"", " ", "null", "1", `"x"`, "[]", "[" + whole + "]", whole + "x", whole + whole, whole[:len(whole)-1], "{", `{"a"`, `{"a":1,}`,
			`{1:2}`, "}", "\xff", "0000", `""0000`, "[}", "{]", "{}{}", `{"a":1 "b":2}`, `{,}`, strings.Repeat(`{"a":`, 20_000),
		} {
			if v, err := m.decode([]byte(data)); err == nil {
				t.Errorf("%s: %.40q is read as %+v", kind, data, v)
			}
		}
		if _, err := m.decode([]byte(" \n" + whole + "\t ")); err != nil {
			t.Error(err)
		}
	}
}

func TestAFieldGivenTwiceIsRefused(t *testing.T) {
	kinds := messages()
	for kind, text := range complete() {
		for _, name := range slices.Sorted(maps.Keys(members(t, text))) {
			doubled := strings.Replace(text, "{", `{"`+name+`":`+string(members(t, text)[name])+",", 1)
			_, err := kinds[kind].decode([]byte(doubled))
			checkField(t, kind+" with two "+name, err, name)
		}
		doubled := strings.Replace(text, "{", `{"zzz":1,"zzz":2,`, 1)
		_, err := kinds[kind].decode([]byte(doubled))
		if kind != "freeze" {
			checkField(t, kind+" with two unknown", err, "")
		}
	}
}

func TestErrorsAreForPeople(t *testing.T) {
	_, err := DecodeCommand([]byte(`{"id":"j","version":"1","request_id":"r","timeout_secs":1.5}`))
	if want := "decode command: timeout_secs: number 1.5 where a whole number from 0 to 2^64-1 belongs"; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	_, err = DecodeHeartbeat([]byte(`{"pc_id":"` + strings.Repeat("é", 1000) + `","at":{}}`))
	if want := "decode heartbeat: at: an object where an RFC 3339 time belongs"; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	_, err = DecodeHeartbeat([]byte(`{"pc_id":"p","at":"` + strings.Repeat("é", 1000) + `"}`))
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("%v", err)
	}
	_, err = DecodeHeartbeat([]byte(`{"pc_id":"p"`))
	if want := "decode heartbeat: is not JSON: unexpected EOF"; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}
