//! The proposals of the HPA controller (autoscaling.md section 6.2), ported: what our own recommendation becomes there,
//! and the baseline of simulations. Tested against a real kube-controller-manager.
