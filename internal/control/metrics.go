//go:build linux

package control

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ListenMetrics listens on a loopback address: what it says is for this host.
func ListenMetrics(address string) (net.Listener, error) {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics on %q: want an address and a port, such as 127.0.0.1:9464", address)
	}
	if !a.Addr().IsLoopback() {
		return nil, fmt.Errorf("listen for metrics on %s: it is not a loopback address", a)
	}
	return net.Listen("tcp", address)
}

// ServeMetrics answers GET /metrics and nothing else, to everybody who can
// connect to l, until ctx ends. It closes l.
func (s *Server) ServeMetrics(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics())
	return serve(ctx, l, mux)
}

const (
	scrapesAtOnce = 4
	scrapeTimeout = 5 * time.Second
)

// metrics answers with what the backend says at that moment.
func (s *Server) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{s.Backend})
	h := promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesAtOnce})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout))
		h.ServeHTTP(w, r)
	})
}

type collector struct{ backend Backend }

var (
	buildInfo      = describe("build_info", "1; the labels say which waybill this is.", "version", "go")
	started        = describe("start_time_seconds", "When the daemon started.")
	generation     = describe("policy_generation", "Number of the policy in force; each one applied has the next.")
	applied        = describe("policy_applied_time_seconds", "When the policy in force was applied.")
	filters        = describe("policy_filters", "Filters of the policy in force.")
	unmatched      = describe("policy_unmatched", "Conditions that can match nothing, because what they name does not exist.")
	inFlight       = describe("in_flight", "Connections between connect() and the proxy's end of the handshake.")
	runs           = describe("runs", "Programs that run behind providers of their choice.")
	warnings       = describe("warnings", "Things that waybill status warns about.")
	providerUp     = describe("provider_up", "1 if the provider's proxy listens on all its addresses.", "provider")
	providerEvents = describe("provider_connections_total", "Connections that the provider wanted, by what came of them.", "provider", "outcome")
	proxyUp        = describe("proxy_up", "1 if the proxy runs that the daemon starts for the provider.", "provider")
	proxyRestarts  = describe("proxy_restarts_total", "Times that the proxy which the daemon starts was started again.", "provider")

	connections = describe("connections_total", "Calls of connect(), by what came of them.", "outcome")
	skipped     = describe("skipped_total", "Providers that wanted a connection and did not get it, being down or in shadow mode.", "reason")
	downs       = describe("down_total", "Times that a provider was found to be down by a connection.", "reason")
	records     = describe("records_total", "Redirect records that were handed over from socket to socket, by their end.", "end")
	calls       = describe("socket_options_total", "Calls for redirect records by proxies.", "call")
	eventsLost  = describe("events_lost_total", "Events that nobody read in time: flows are incomplete.")
	others      = describe("other_total", "What the kernel programs counted beside.", "counter")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("waybill_"+name, help, labels, nil)
}

// Describe sends nothing: which counters there are is the engine's to know.
func (*collector) Describe(chan<- *prometheus.Desc) {}

func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	status, err := c.backend.Status(ctx)
	if err != nil {
		to <- prometheus.NewInvalidMetric(buildInfo, err)
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(buildInfo, 1, status.Version, runtime.Version())
	gauge(started, seconds(status.Started))
	gauge(generation, float64(status.Policy.Generation))
	gauge(applied, seconds(status.Policy.Applied))
	gauge(filters, float64(status.Policy.Filters))
	gauge(unmatched, float64(len(status.Unmatched)))
	gauge(warnings, float64(len(status.Warnings)))
	gauge(inFlight, float64(status.InFlight))
	gauge(runs, float64(status.Runs))
	for name, n := range status.Counters {
		d, labels := family(name)
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for i := range status.Providers {
		collectProvider(to, &status.Providers[i])
	}
}

// family finds the metric that a counter of the engine belongs to.
func family(counter string) (*prometheus.Desc, []string) {
	switch counter {
	case "destination_refuses", "destination_unrouted", "passed", "redirected", "blocked", "looped", "forbidden", "quic_dropped":
		return connections, []string{counter}
	case "bypassed", "shadowed":
		return skipped, []string{counter}
	case "inherited", "inherited_ambiguous", "unlisted", "departed", "arrived", "abandoned", "lost", "diverted", "intercepted":
		return records, []string{counter}
	case "queried", "set":
		return calls, []string{counter}
	case "events_lost":
		return eventsLost, nil
	}
	if strings.HasPrefix(counter, "refused_") {
		return connections, []string{counter}
	}
	if reason, ok := strings.CutPrefix(counter, "down_"); ok {
		return downs, []string{reason}
	}
	if strings.HasPrefix(counter, "set_") {
		return calls, []string{counter}
	}
	return others, []string{counter}
}

func collectProvider(to chan<- prometheus.Metric, p *Provider) {
	to <- prometheus.MustNewConstMetric(providerUp, prometheus.GaugeValue, one(p.Up()), p.Name)
	for outcome, n := range map[string]uint64{
		"redirected": p.Counters.Redirected,
		"arrived":    p.Counters.Arrived,
		"bypassed":   p.Counters.Bypassed,
		"blocked":    p.Counters.Blocked,
		"forbidden":  p.Counters.Forbidden,
		"shadowed":   p.Counters.Shadowed,
		"inherited":  p.Counters.Inherited,
		"reset":      p.Counters.Reset,
	} {
		to <- prometheus.MustNewConstMetric(providerEvents, prometheus.CounterValue, float64(n), p.Name, outcome)
	}
	if p.Proxy != nil {
		to <- prometheus.MustNewConstMetric(proxyUp, prometheus.GaugeValue, one(p.Proxy.Running), p.Name)
		to <- prometheus.MustNewConstMetric(proxyRestarts, prometheus.CounterValue, float64(p.Proxy.Restarts), p.Name)
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is 0 for what never was.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}
