package systemtest

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestProveDayInLife lets the whole of kanade live a day in simulated time, on the two days of a year on which the clock
// is changed, with schedules of every form, endpoints that are away for hours, and every part away for some time. At the
// end every nominal tick is in the ledger once, every exec has ended, and what the read model says of runs is what the
// executors were asked for.
func TestProveDayInLife(t *testing.T) {
	long(t)
	real := time.Now()
	var days []string
	for i, d := range []struct {
		name  string
		begin time.Time
	}{
		{"spring", time.Date(2000, 3, 25, 22, 0, 0, 0, time.UTC)},
		{"autumn", time.Date(2000, 10, 28, 22, 0, 0, 0, time.UTC)},
	} {
		if os.Getenv("KANADE_PROVE") != "full" && i > 0 {
			break
		}
		t.Run(d.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { days = append(days, d.name+": "+liveDay(t, d.begin)) })
		})
	}
	if t.Failed() {
		return
	}
	t.Logf("PROVED TestProveDayInLife: %s; %d days in %.1f s, nothing drawn at random", strings.Join(days, "; "), len(days), time.Since(real).Seconds())
}

// forms are the schedules of the day by their ids; the job of each has its name.
func forms() map[string]form {
	all, edge := "{all: true}", "{groups: [edge]}"
	berlin := "Europe/Berlin"
	return map[string]form{
		"night":    {when: `{calendar: {at: "02:30"}}`, tz: berlin, target: all, at: []int{150}},
		"weekend":  {when: `{calendar: {at: "07:15", days: [sat-sun]}}`, tz: berlin, target: edge, at: []int{435}, days: []time.Weekday{0, 6}},
		"workdays": {when: `{calendar: {at: "12:00", days: [mon-fri]}}`, tz: berlin, target: all, at: []int{720}, days: []time.Weekday{1, 2, 3, 4, 5}},
		"tokyo":    {when: `{calendar: {at: "12:00"}}`, tz: "Asia/Tokyo", target: "{pcs: [pc-02]}", at: []int{720}},
		"twice":    {when: `{cron: "45 2,14 * * *"}`, tz: berlin, target: all, at: []int{165, 885}},
		"quarter":  {when: `{cron: "*/15 * * * *"}`, tz: "utc", target: all, minutes: []int{0, 15, 30, 45}},
		"hourly":   {when: `{cron: "0 * * * *"}`, tz: berlin, target: edge, minutes: []int{0}},
		"long":     {when: `{cron: "*/20 * * * *"}`, tz: berlin, target: all, minutes: []int{0, 20, 40}},
		"rounds":   {when: `{per_pc: {every: 6h}}`, tz: "utc", target: all, every: 6 * time.Hour, members: []string{"pc-01", "pc-02", "pc-03"}},
		"pulse":    {when: `{per_pc: {every: 30m}}`, tz: "utc", target: edge, every: 30 * time.Minute, members: []string{"pc-01", "pc-03"}},
	}
}

// play is what a script does: how long it takes and what it exits with. It rests on nothing but job, endpoint and time.
func play(job, pc string, since time.Duration) (time.Duration, int) {
	switch job {
	case "long":
		if int(since.Hours())%4 == 1 { // longer than to the next tick
			return 25*time.Minute + 7*time.Second, 0
		}
		return 90 * time.Second, 0
	case "hourly":
		if pc == "pc-01" && int(since.Hours())%2 == 1 {
			return 20 * time.Second, 3
		}
		return 20 * time.Second, 0
	case "pulse":
		if pc == "pc-01" && since > 5*time.Hour+30*time.Minute && since < 6*time.Hour+45*time.Minute {
			return 10 * time.Second, 1 // it backs off for a while
		}
		return 10 * time.Second, 0
	default:
		return 3 * time.Second, 0
	}
}

// liveDay lives one day and checks it.
func liveDay(t *testing.T, begin time.Time) string {
	time.Sleep(time.Until(begin))
	d := newDay(t, begin)
	d.startAll()
	d.setUp()

	d.at("1h7m30s")
	d.exec("quarter", `{"target":{"all":true}}`)

	d.at("2h52m") // 02:30 in Berlin passes without a scheduler
	d.away(func() { d.stop("scheduler-a") }, "3h20m10s", func() { d.startScheduler("scheduler-a") })

	d.at("4h5m5s") // the machine is off
	d.cut("pc-02")
	d.offline["pc-02"] = append(d.offline["pc-02"], span{time.Now(), d.time("8h35m")})

	d.at("5h10m")
	d.stop("projector")
	d.at("6h5m30s") // the api takes on work, and says how old what it shows is
	d.exec("quarter", `{"target":{"pcs":["pc-01"]}}`)
	d.readIsOld(50 * time.Minute)
	d.at("6h40m")
	d.startProjector()

	d.at("7h5m")
	d.stop("api")
	_, _, err := d.try("GET", "/api/jobs", "")
	require.Error(t, err)
	d.at("8h10m")
	d.startAPI()
	d.at("8h35m")
	d.startEndpoint("pc-02")

	d.at("9h2m") // two schedulers for some hours, the first of which dies
	d.startScheduler("scheduler-b")
	d.at("10h13m")
	d.away(d.broker.Shutdown, "10h13m5s", d.restartBroker)
	d.at("11h28m")
	d.away(d.broker.Shutdown, "12h8m", d.restartBroker)
	d.at("12h30m") // as ticks are due
	d.cut("scheduler-a")
	d.at("13h")
	d.startScheduler("scheduler-a")

	d.at("13h10m20s") // while the long script runs there
	d.cables["pc-03"].pull()
	d.offline["pc-03"] = append(d.offline["pc-03"], span{time.Now(), d.time("15h10m")})
	d.at("15h")
	d.stop("scheduler-b")
	d.at("15h10m")
	d.cables["pc-03"].plug()

	d.at("16h0m30s")
	d.enable("quarter", false)
	d.at("17h10m30s")
	d.enable("quarter", true)
	d.at("18h5m30s")
	later := d.forms["hourly"]
	later.when, later.minutes = `{cron: "30 * * * *"}`, []int{30}
	d.save("hourly", later)

	d.at("19h") // again as ticks are due, for a moment
	d.away(func() { d.stop("scheduler-a") }, "19h0m2s", func() { d.startScheduler("scheduler-a") })
	d.at("20h7m")
	d.delete("long")

	d.at("20h40m") // a power cut
	d.away(d.cutAll, "22h50m", func() { d.restartBroker(); d.startAll() })
	d.at("24h14m")
	return d.check()
}

// startAll starts every service and endpoint.
func (d *day) startAll() {
	d.startScheduler("scheduler-a")
	d.startProjector()
	d.startAPI()
	for _, pc := range []string{"pc-01", "pc-02", "pc-03"} {
		d.startEndpoint(pc)
	}
}

// cutAll is the end of everything at once.
func (d *day) cutAll() {
	d.broker.Shutdown()
	for name := range d.running {
		if _, is := d.cables[name]; is {
			d.offline[name] = append(d.offline[name], span{time.Now(), d.time("22h50m")})
		}
		d.cut(name)
	}
}

// setUp makes groups, jobs and schedules.
func (d *day) setUp() {
	settle(10 * time.Second)
	var agents []struct {
		PCID string `json:"pc_id"`
	}
	d.read("/api/agents", &agents)
	require.Len(d.t, agents, 3)
	d.write("PUT", "/api/agents/pc-01/groups", `{"groups":["edge"]}`)
	d.write("PUT", "/api/agents/pc-03/groups", `{"groups":["edge","far"]}`)
	for id, f := range d.forms {
		d.write("POST", "/api/jobs", fmt.Sprintf("id: %s\nversion: 1.0.0\nexecute: {shell: sh, timeout: 30m, script: play}\n", id), "Content-Type", "application/yaml")
		d.save(id, f)
	}
}

// save stores a schedule, whose form counts from now on.
func (d *day) save(id string, f form) {
	d.t.Helper()
	d.write("POST", "/api/schedules", f.document(id, id), "Content-Type", "application/yaml")
	d.forms[id] = f
	d.versions[id] = append(d.versions[id], version{from: time.Now(), form: f, enabled: true})
}

func (d *day) enable(id string, on bool) {
	d.t.Helper()
	d.write("POST", "/api/schedules/"+id+map[bool]string{true: "/enable", false: "/disable"}[on], "")
	d.versions[id] = append(d.versions[id], version{from: time.Now(), form: d.forms[id], enabled: on})
}

func (d *day) delete(id string) {
	d.t.Helper()
	d.write("DELETE", "/api/schedules/"+id, "")
	d.versions[id] = append(d.versions[id], version{from: time.Now()})
}

// exec runs a job by hand, and asks twice for it.
func (d *day) exec(job, plan string) {
	d.t.Helper()
	var first, second struct {
		ExecID string `json:"exec_id"`
	}
	key := fmt.Sprint("key-", time.Now().Unix())
	require.NoError(d.t, json.Unmarshal(d.write("POST", "/api/exec/"+job, plan, "Idempotency-Key", key), &first))
	require.NoError(d.t, json.Unmarshal(d.write("POST", "/api/exec/"+job, plan, "Idempotency-Key", key), &second))
	require.Equal(d.t, first, second)
	d.manual = append(d.manual, first.ExecID)
}

// readIsOld reads while nobody feeds the read model.
func (d *day) readIsOld(age time.Duration) {
	d.t.Helper()
	_, header, err := d.try("GET", "/api/executions", "")
	require.NoError(d.t, err)
	at, err := time.Parse(time.RFC3339Nano, header.Get("Kanade-Applied-At"))
	require.NoError(d.t, err)
	require.Greater(d.t, time.Since(at), age)
	_, _, err = d.try("GET", "/api/executions", "", "Kanade-Min-Sequence", fmt.Sprint(d.seen))
	require.ErrorContains(d.t, err, "503")
}
