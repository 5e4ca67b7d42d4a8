package wire

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestTimesAreWrittenInUTCWithTheDigitsOf04345(t *testing.T) {
	zone := time.FixedZone("", 9*3600)
	for ns, want := range map[int]string{
		0: "10:00:00Z", 1: "10:00:00.000000001Z", 775760000: "10:00:00.775760Z", 500_000_000: "10:00:00.500Z", 606775760: "10:00:00.606775760Z",
	} {
		h := Heartbeat{PCID: "p", At: time.Date(2026, 11, 23, 19, 0, 0, ns, zone), AgentVersion: "1"}
		data, err := json.Marshal(h)
		if err != nil || !strings.Contains(string(data), `"at":"2026-11-23T`+want+`"`) {
			t.Errorf("%d ns: %s, %v", ns, data, err)
		}
		again, err := DecodeHeartbeat(data)
		if err != nil || !again.At.Equal(h.At) || again.At.Location() != time.UTC {
			t.Errorf("%d ns: %v, %v", ns, again.At, err)
		}
	}
}

func TestListsAreNeverNull(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{AgentGroups{}, `{"groups":[]}`},
		{NewAgentGroups(), `{"groups":[]}`},
		{NewAgentGroups("b", "a", "b"), `{"groups":["a","b"]}`},
		{&AgentGroups{Groups: []string{"a"}}, `{"groups":["a"]}`},
		{ConfigScope{}, `{}`},
		{Freeze{}, `{}`},
		{LogsRequest{}, `{"tail_lines":0}`},
		{ObsEvent{PCID: "p"}, `{"pc_id":"p","at":"0001-01-01T00:00:00Z","kind":"","source":"","payload":null}`},
		{ProcessPerf{PCID: "p"}, `{"pc_id":"p","at":"0001-01-01T00:00:00Z","processes":[]}`},
	} {
		if data, err := json.Marshal(c.v); err != nil || string(data) != c.want {
			t.Errorf("%s, %v; want %s", data, err, c.want)
		}
	}
}

func TestGroupsAreSortedWhenRead(t *testing.T) {
	g, err := DecodeAgentGroups([]byte(`{"groups":["b","a","b"]}`))
	if err != nil || len(g.Groups) != 2 || g.Groups[0] != "a" {
		t.Errorf("%v, %v", g, err)
	}
}

func TestWhatJSONCannotHoldIsAnError(t *testing.T) {
	nan := 0.0
	nan /= nan
	if data, err := json.Marshal(HostPerf{CPUPct: &nan}); err == nil {
		t.Errorf("%s", data)
	}
	if data, err := json.Marshal(ObsEvent{Payload: json.RawMessage("{")}); err == nil {
		t.Errorf("%s", data)
	}
}
