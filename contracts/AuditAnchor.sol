// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Keeps the newest hash of an agent's journal, so that nobody can cut or rewrite the journal unseen
/// @notice Each sender writes for itself, and only forward: a number that was anchored is never anchored again. Nobody owns it,
/// it holds no money and calls nothing.
contract AuditAnchor {
    struct Head {
        uint64 seq;
        bytes32 head;
    }

    /// @notice What each sender anchored last.
    mapping(address => Head) public heads;

    event Anchored(address indexed who, uint64 indexed seq, bytes32 head);

    error NotRising(uint64 seq, uint64 last);

    /// @notice Says that record `seq` of the sender's journal, and with it all before, has the chained hash `head`.
    function anchor(uint64 seq, bytes32 head) external {
        uint64 last = heads[msg.sender].seq;
        if (seq <= last) revert NotRising(seq, last);
        heads[msg.sender] = Head(seq, head);
        emit Anchored(msg.sender, seq, head);
    }
}
