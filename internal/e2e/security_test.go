package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"forebay/internal/e2e/kafka"
)

// TLS and SASL against brokers that ask for them.
func TestTLSAndSASL(t *testing.T) {
	for name, options := range map[string]kafka.Options{
		"TLS and PLAIN":                {TLS: true, SASL: "PLAIN"},
		"mutual TLS and SCRAM-SHA-256": {MutualTLS: true, SASL: "SCRAM-SHA-256"},
		"SCRAM-SHA-512 without TLS":    {SASL: "SCRAM-SHA-512"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t, kafka.Start(t, options))
			topic := b.topic("t", 2)
			s := b.settings(topic)
			s.group = "g"
			secured := func(password string) string {
				text := fmt.Sprintf("sasl = { mechanism = %q, user = %q, password = %q }\n", options.SASL, kafka.User, password)
				switch {
				case options.MutualTLS:
					text += fmt.Sprintf("tls = { ca = %q, cert = %q, key = %q }\n", b.cluster.CA(), b.cluster.ClientCert(), b.cluster.ClientKey())
				case options.TLS:
					text += fmt.Sprintf("tls = { ca = %q }\n", b.cluster.CA())
				}
				return text
			}
			s.kafka = secured("wrong")
			g := newGateway(t, s)
			g.start()
			g.unready("uthenticat") // which of the client's words it is does not matter
			g.stop()
			g.settings.kafka = secured(kafka.Password)
			g.configure()
			g.up()
			b.producer(topic, 17).send(t.Context(), 1000, mixed)
			newOracle(g, b, topic).delivered(30 * time.Second)
			g.stop()
		})
	}
}
